"""Messages without an id of their own that the broker delivers once more: the journal has one already, only the acknowledgement of it
was lost (a connection that broke, kill -9). Such a copy has DUP = 1 and the packet id of the first delivery, and gets its name.

A packet id is used again some day, and the first delivery of the newer message may have been lost on the way. So a copy is believed
only among the last IN_FLIGHT messages (a broker waits for the oldest of them before it sends the next), and only of a broker that was
seen to count its packet ids upwards for as many. In doubt a message is a new one: twice is better than never.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from plugins.mqtt_client import IN_FLIGHT
from runtime.messages import new_id

SLOT = struct.Struct("<QH16s30s")  # running number, packet id, hash, name
BOOT = Path("/proc/sys/kernel/random/boot_id")
HEAD = 64  # bytes: the boot in which the file was written
ASCENT = 32_768  # packet ids by which the next one is larger, counted round, at most


@dataclass(frozen=True)
class Delivery:
    """One of the last messages."""

    number: int
    mid: int
    digest: bytes
    name: str


class Redelivered:
    """One session's. The file is written before the journal and never synced: it survives kill -9, and after a power cut it is not
    believed. Without one (None) names are kept for this run."""

    def __init__(self, path: Path | None = None, boot: Path = BOOT) -> None:
        self._last: deque[Delivery] = deque(maxlen=IN_FLIGHT)
        self._number = self._rising = 0  # the last one's; how many in a row counted upwards
        self._file = -1
        with suppress(OSError):
            if path is not None:
                self._open(path, boot.read_bytes().strip()[:HEAD].ljust(HEAD))

    def name(self, topic: str, payload: bytes, mid: int, again: bool) -> str:
        """What to call this message: a fresh name, or that of the delivery which it repeats (`again`: DUP = 1)."""
        digest = hashlib.sha256(topic.encode() + b"\0" + payload).digest()[:16]
        if again and self._rising >= IN_FLIGHT:
            for delivery in self._last:
                if (delivery.mid, delivery.digest) == (mid, digest):
                    return delivery.name
        delivery = Delivery(self._number + 1, mid, digest, new_id("ob"))
        self._keep(delivery)
        self._write(delivery)
        return delivery.name

    def new_session(self) -> None:
        """The broker has forgotten: it counts anew, and repeats nothing."""
        self._last.clear()
        self._rising = 0
        with suppress(OSError):
            if self._file >= 0:
                os.ftruncate(self._file, HEAD)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _keep(self, delivery: Delivery) -> None:
        rises = bool(self._last) and 0 < (delivery.mid - self._last[-1].mid) % 65_535 < ASCENT
        self._rising = self._rising + 1 if rises else 1
        self._number = delivery.number
        self._last.append(delivery)

    def _open(self, path: Path, boot: bytes) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        found = os.pread(self._file, HEAD + SLOT.size * IN_FLIGHT, 0)
        if found[:HEAD] != boot:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, boot, 0)
            return
        whole = (len(found) - HEAD) // SLOT.size * SLOT.size
        for number, mid, digest, name in sorted(SLOT.iter_unpack(found[HEAD : HEAD + whole])):
            if number:
                self._keep(Delivery(number, mid, digest, name.rstrip(b"\0").decode("ascii", "replace")))

    def _write(self, delivery: Delivery) -> None:
        if self._file < 0:
            return
        slot = SLOT.pack(delivery.number, delivery.mid, delivery.digest, delivery.name.encode())
        with suppress(OSError):
            os.pwrite(self._file, slot, HEAD + SLOT.size * (delivery.number % IN_FLIGHT))
