"""One daemon a data directory: an advisory lock that the kernel lets go when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import Unavailable

NAME = "lock"


@contextmanager
def hold(data: Path) -> Iterator[None]:
    """Hold the lock inside the block. Raises Unavailable naming the process that has it."""
    data.mkdir(parents=True, exist_ok=True)
    handle = os.open(data / NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise Unavailable(
                f"another Corrigible (process {holder}) uses the data directory {data}; stop it, or set [agent] data to another one"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
