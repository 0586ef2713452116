"""What people and programs may ask of a running daemon (or, with it down, of its journal): the console and CLI stand on this.

Every command checks its input, does one thing, and raises a CorrigibleError that can be shown as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from runtime.control.looking import Looking
from runtime.control.saying import Saying
from runtime.control.showing import Showing
from runtime.control.switching import Switching


@dataclass(frozen=True)
class Control:
    """All commands, by what they are about."""

    looking: Looking
    showing: Showing
    saying: Saying
    switching: Switching

    def command(self, name: str) -> Callable[..., Awaitable[Any]]:
        """The one of this name; no two parts have the same."""
        (part,) = (part for part in vars(self).values() if hasattr(part, name))
        found: Callable[..., Awaitable[Any]] = getattr(part, name)
        return found
