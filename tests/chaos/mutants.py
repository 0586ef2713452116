"""Planted bugs: each replaces one named function of the real daemon, in its own process, before it starts.

A mutant that the checker does not find is a hole in the checker. Never imported by the runtime.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.errors import BadConfig

MUTANTS: dict[str, Callable[[], None]] = {}


def plant(name: str) -> None:
    """Put the bug in. Raises BadConfig for a name that is none."""
    if name not in MUTANTS:
        raise BadConfig(f"there is no mutant {name!r}; there are {', '.join(MUTANTS)}")
    MUTANTS[name]()
