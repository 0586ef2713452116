"""Chaos: programs that break Corrigible on purpose, at every point where it can be broken, and look at what is left."""
