"""A trainer belongs to a daemon: it must not outlive it, not even while it is stopped to let a decision pass."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from runtime.errors import Unavailable

PR_SET_PDEATHSIG = 1  # prctl(2)
_parent: int | None = None


def bind(pid: int | None) -> None:
    """From now on this process ends with `pid`, its parent; None = it is nobody's child. Raises Unavailable if it has gone
    already."""
    global _parent
    _parent = pid
    if pid is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    check()


def check() -> None:
    """Raises Unavailable if the parent is gone (for systems whose kernel does not see to it)."""
    if _parent is not None and os.getppid() != _parent:
        raise Unavailable("the daemon that wanted this run is gone")
