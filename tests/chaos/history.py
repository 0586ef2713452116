"""What producers, actuators and the nemesis saw, each as it happened: append-only, one JSON line an event.

The daemon never sees these files. The checker holds them against the journal.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import msgspec

from runtime.messages import Message


class Sent(Message, frozen=True, kw_only=True, tag=True):
    """A producer stored a message and begins to send it."""

    id: str
    producer: str
    topic: str
    payload: bytes
    valid: bool = True  # False: it belongs into quarantine
    at: float


class Acked(Message, frozen=True, kw_only=True, tag=True):
    """The agent told the producer that it has the message."""

    id: str
    producer: str
    at: float


class Kept(Message, frozen=True, kw_only=True, tag=True):
    """What somebody said once, and the broker retains for whoever subscribes: a state by now, and no event."""

    payload: bytes


class Received(Message, frozen=True, kw_only=True, tag=True):
    """A command reached an actuator, as often as it came."""

    actuator: str
    command: str
    value: str
    not_after: float
    fence: int = 0
    retained: bool = False
    at: float


class Effect(Message, frozen=True, kw_only=True, tag=True):
    """The actuator did it; it does a command id once."""

    actuator: str
    command: str
    value: str
    at: float


class Fault(Message, frozen=True, kw_only=True, tag=True):
    """The nemesis did something. `evidence` is what proves that it happened; empty = nothing does."""

    kind: str
    evidence: str
    recovered: bool = True  # messages were acknowledged again afterwards
    at: float


class Serving(Message, frozen=True, kw_only=True, tag=True):
    """After a kill of the agent the first message was acknowledged again, so many seconds later."""

    seconds: float
    at: float


class Spoilt(Message, frozen=True, kw_only=True, tag=True):
    """The weights of the adapter that served were changed on the disk, and the daemon died: from then on nothing is theirs."""

    adapter: str
    decisions: int  # the place of the newest decision at that time
    at: float


class Left(Message, frozen=True, kw_only=True, tag=True):
    """How the run ended: seconds are not given to whoever still waits."""

    exit_code: int | None
    at: float


class Synced(Message, frozen=True, kw_only=True, tag=True):
    """Events that were sent one after the other, and how often the journal was forced to the disk meanwhile."""

    events: int
    syncs: int


Record = Sent | Acked | Kept | Received | Effect | Fault | Serving | Spoilt | Left | Synced


class History:
    """One writer's file. `records` holds the same, so that a run need not read it back."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab")
        self.records: list[Record] = []

    def append(self, record: Record) -> None:
        self._file.write(msgspec.json.encode(record) + b"\n")
        self._file.flush()
        self.records.append(record)

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> list[Record]:
    """A history of an earlier run."""
    return [msgspec.json.decode(line, type=Record) for line in path.read_bytes().splitlines()]
