"""When it is too late, by either clock: a wall clock that is put back must not make an old command young."""

from __future__ import annotations

import time
from collections.abc import Callable

Left = Callable[[], float]
"""Seconds until it is too late; 0 or less = it is."""


def until(
    made_at: float,
    expires_at: float,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Left:
    """Of two UTC times, seen from now on: whichever clock comes first, and never more than it was made to live, for the clock
    that wrote both may have been ahead of the one we have now."""
    end = monotonic() + min(expires_at - clock(), expires_at - made_at)
    return lambda: min(expires_at - clock(), end - monotonic())
