"""The daemon's wall clock, which the nemesis may put forward and back while the monotonic one goes on.

`time.time` itself is replaced, before the runtime is imported, by one that adds the seconds in a shared file: as an
administrator, a battery that is empty or a wrong time server would do it to everything the daemon asks.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

VARIABLE = "CHAOS_CLOCK"  # of the environment: the file's path
OFFSET = struct.Struct("d")  # seconds


class Clock:
    """The nemesis' side: a file of one number. `set` is seen at once by whoever runs by this clock."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(OFFSET.pack(0.0))
        self.file = file

    def set(self, seconds: float) -> None:
        with self.file.open("r+b") as opened:
            opened.write(OFFSET.pack(seconds))


def follow(file: Path) -> None:
    """From now on this process' wall clock goes by the file."""
    right = time.time
    with file.open("rb") as opened:
        shared = mmap.mmap(opened.fileno(), OFFSET.size, prot=mmap.PROT_READ)
    time.time = lambda: right() + OFFSET.unpack(shared)[0]
