"""The command line: one file per kind of question, all of them thin: they ask the daemon, or the journal, and show the answer."""
