"""Other people's programs for parts of what Corrigible does, one small program each, to be measured against it."""
