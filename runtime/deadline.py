"""When it is too late, by either clock: a wall clock that is put back must not make an old command young."""

from __future__ import annotations

import time
from collections.abc import Callable

Left = Callable[[], float]
"""Seconds until it is too late; 0 or less = it is."""


def until(
    expires_at: float, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
) -> Left:
    """Of a UTC time, seen from now on: whichever clock comes first."""
    end = monotonic() + expires_at - clock()
    return lambda: min(expires_at - clock(), end - monotonic())
