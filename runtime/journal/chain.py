"""A hash chain over the journal: one link a commit, over every row the commit added.

    digest of a row = SHA-256 of MessagePack [table, its columns in order]
    hash of a link  = SHA-256 of (hash of the link before | at, 8 bytes | covers | digests of its rows, in the order of `covers`)

The link is written in the transaction it is about: a row is in the chain exactly if it is in the journal. Whoever changes the
file afterwards has to make every later link anew, and the newest one is kept outside (`anchor.py`).
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

COLUMNS = {  # what is never changed once it is written
    "observation": "seq, id, at, topic, source, payload, body",
    "percept": "seq, id, at, scope, text, synthetic, body",
    "decision": "seq, id, percept_id, at, scope, action, by, adapter, p_model, p_behaviour, body",
    "command": "seq, id, decision_id, at, actuator, action, expires_at, body",
    "outcome": "seq, id, decision_id, command_id, at, status, reason, body",
    "feedback": "seq, id, decision_id, at, kind, source, action, rating, body",
    "forgotten": "seq, id, at, feedback_id, by, body",
    "release": "seq, id, at, lane, adapter, previous, why, provisional, body",
    "quarantined": "seq, id, at, topic, reason, size, sha256, payload, body",
    "removed": "seq, at, name, link, rows, why",
}
AT = struct.Struct(">d")
START = bytes(32)  # what stands before the first link
BEFORE = "before"  # in the place of a table's name: rows from before the chain, which it does not cover

Cover = tuple[str, int, int]  # table, first and last seq
_encoded = msgspec.msgpack.encode


@dataclass(frozen=True)
class Link:
    seq: int
    hash: bytes


def newest(connection: sqlite3.Connection) -> Link:
    """Of a journal; link 0 where there is none."""
    found = connection.execute("SELECT seq, hash FROM chain ORDER BY seq DESC LIMIT 1").fetchone()
    return Link(*found) if found else Link(0, START)


def digest(table: str, row: Sequence[Any]) -> bytes:
    """Of one row, its values in the order of COLUMNS."""
    return hashlib.sha256(_encoded((table, *row))).digest()


def hashed(before: bytes, at: float, covers: str, digests: Iterable[bytes]) -> bytes:
    """The hash of a link."""
    made = hashlib.sha256(before + AT.pack(at) + covers.encode())
    for one in digests:
        made.update(one)
    return made.digest()


class Chain:
    """The writer's end of it. Everything runs on the thread of the connection, within the writer's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.renew(connection)
        self._queries = {
            table: f"SELECT {columns} FROM {table} WHERE seq > ? ORDER BY seq" for table, columns in COLUMNS.items()
        }

    def renew(self, connection: sqlite3.Connection) -> None:
        """As it is on the disk: at the beginning, and whenever the connection was opened anew."""
        self.head = newest(connection)
        self._marks = {table: _last(connection, table) for table in COLUMNS}

    def extend(self, connection: sqlite3.Connection, at: float) -> Link:
        """Write the link over what this transaction added; the link, or the head if it added nothing. It counts once `accept`
        is called, after the commit."""
        covers: list[tuple[str, int, int]] = []
        digests: list[bytes] = []
        if not self.head.seq:
            covers += [(f"{BEFORE} {table}", 0, mark) for table, mark in self._marks.items() if mark]
        for table, query in self._queries.items():
            rows = connection.execute(query, (self._marks[table],)).fetchall()
            if rows:
                covers.append((table, rows[0][0], rows[-1][0]))
                digests += [digest(table, row) for row in rows]
        if not digests:
            return self.head
        told = msgspec.json.encode(covers).decode()
        link = Link(self.head.seq + 1, hashed(self.head.hash, at, told, digests))
        connection.execute(
            "INSERT INTO chain (seq, at, covers, hash) VALUES (?, ?, ?, ?)", (link.seq, at, told, link.hash)
        )
        self._new = {table: last for table, _, last in covers if table in COLUMNS}
        return link

    def accept(self, link: Link) -> None:
        """The transaction of this link was committed."""
        if link != self.head:
            self.head = link
            self._marks |= self._new


def _last(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()[0])


def covered(told: str) -> Iterator[Cover]:
    """Of a link's `covers`."""
    yield from (msgspec.json.decode(told, type=list[Cover]) if told else ())
