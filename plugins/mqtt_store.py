"""What a producer may not lose: its messages in a small SQLite file, each until the agent has said that it has it.

`add` returns after the disk has it (synchronous = FULL): it survives kill -9 and a power cut. The file names its own counter
(`boot`), so a message has the same identity in every run. One process a file; never put an old copy of the file back, for its
numbers were used already and what is sent with them again counts as a copy.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import BadInput, Corrupt, Unavailable
from runtime.messages import new_id

LIMIT = 10_000  # messages that may wait
SCHEMA = """
CREATE TABLE IF NOT EXISTS counter (boot TEXT NOT NULL, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS message (
    place INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL);
"""


@dataclass(frozen=True)
class Kept:
    """A message that waits. `seq` is its number among the producer's sensor messages, 0 if it has none."""

    place: int
    boot: str
    seq: int
    topic: str
    payload: bytes

    def told(self, producer: str) -> dict[str, str]:
        """Its user properties, the same whenever it is sent."""
        if self.seq:
            return {"producer": producer, "boot": self.boot, "seq": str(self.seq)}
        return {"producer": producer, "id": self.identity(producer)}

    def identity(self, producer: str) -> str:
        """What the agent's acknowledgement calls it."""
        return f"{producer}/{self.boot}/{self.seq}" if self.seq else f"{producer}/{self.boot}/said-{self.place}"


class Store:
    """`limit`: messages that may wait. Raises Unavailable if another process has the file, Corrupt if it is none of ours."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path, self._limit = path, limit
        self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if "locked" in str(error):
                raise Unavailable(
                    f"{path} is in use by another process; every producer needs a file of its own"
                ) from None
            raise Corrupt(f"{path} cannot be used as a producer's store: {error}") from None

    def _open(self) -> None:
        run = self._connection.execute
        for name, value in (("locking_mode", "EXCLUSIVE"), ("journal_mode", "WAL"), ("synchronous", "FULL")):
            run(f"PRAGMA {name} = {value}")
        self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        if run("SELECT boot FROM counter").fetchone() is None:
            run("INSERT INTO counter VALUES (?, 0)", (new_id("b"),))
        ((self._boot, self._seq),) = run("SELECT boot, seq FROM counter")
        (self._count,) = run("SELECT count(*) FROM message").fetchone()

    def add(self, topic: str, payload: bytes, *, numbered: bool) -> Kept:
        """Durable on return. Raises BadInput if too many wait, Unavailable if the disk does not take it."""
        if self._count >= self._limit:
            raise BadInput(
                f"{self._count} messages wait for the agent's acknowledgement, and {self._path} keeps no more; "
                "is the agent running, and does it subscribe to these topics?"
            )
        seq = self._seq + 1 if numbered else 0
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            if numbered:
                run("UPDATE counter SET seq = ?", (seq,))
            place = run("INSERT INTO message (seq, topic, payload) VALUES (?, ?, ?)", (seq, topic, payload)).lastrowid
            run("COMMIT")
        except sqlite3.Error as error:
            self._undo()
            raise Unavailable(f"{self._path} does not take the message: {error}") from None
        except BaseException:  # a text that is none, for example: no transaction stays open for the next message
            self._undo()
            raise
        self._count += 1
        self._seq = max(self._seq, seq)
        assert place is not None
        return Kept(place, self._boot, seq, topic, payload)

    def waiting(self) -> list[Kept]:
        """What was never acknowledged, oldest first."""
        rows = self._connection.execute("SELECT place, seq, topic, payload FROM message ORDER BY place")
        return [Kept(place, self._boot, seq, topic, payload) for place, seq, topic, payload in rows]

    def forget(self, places: Sequence[int]) -> None:
        """The agent has them. Should the disk not take that, they are sent once more some day, and count as copies."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM message WHERE place = ?", [(place,) for place in places])
            self._connection.execute("COMMIT")
            (self._count,) = self._connection.execute("SELECT count(*) FROM message").fetchone()
        except sqlite3.Error:
            self._undo()

    def close(self) -> None:
        self._connection.close()

    def _undo(self) -> None:
        with suppress(sqlite3.Error):  # the error that brought us here is the one to tell
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
