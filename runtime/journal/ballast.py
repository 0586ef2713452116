"""Room set aside for a full disk: given up so that what is under way can be written down, taken back when there is space."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

NAME = "ballast"  # beside the journal
MIB = 1 << 20
LOOK = 5.0  # seconds between two looks whether there is space again
REST = 2  # times the ballast that has to be free before it is taken back


class Ballast:
    """One file of `size` MiB beside the journal; 0 = none. A ballast that could not be put down is no error: it is `low`."""

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size * MIB
        self._next = 0.0  # monotonic
        self._held = False
        self._fill()

    @property
    def low(self) -> bool:
        """The disk is full, or was until a moment ago: only what must be is written."""
        if self._held:
            return False
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LOOK
            self._fill()
        return not self._held

    def release(self) -> bool:
        """Give the room up. False if that was done before."""
        if not self._size or not self._held:
            return False
        self._path.unlink(missing_ok=True)
        self._held = False
        self._next = time.monotonic() + LOOK
        return True

    def _fill(self) -> None:
        self._held = not self._size
        with suppress(OSError):
            if self._path.exists() and self._path.stat().st_size == self._size:
                self._held = True
            elif self._size and shutil.disk_usage(self._path.parent).free >= REST * self._size:
                self._write()
                self._held = True

    def _write(self) -> None:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(handle, 0, self._size)
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
