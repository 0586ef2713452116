"""Corrigible: the agent you correct once. A plugin imports from `runtime.roles`, `runtime.messages`, `runtime.catalogue`."""

__version__ = "0.1.0"
