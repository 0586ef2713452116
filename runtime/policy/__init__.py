"""Percept text + catalogue -> action: prompt, trie, grammar, model, and the worker process they live in."""
