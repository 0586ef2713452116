"""Is the journal what was written into it? Every link of the chain against the rows it covers, in one pass, then the anchors."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from runtime.journal.chain import BEFORE, COLUMNS, START, covered, digest, hashed

Gone = dict[str, dict[int, bytes]]  # table -> seq -> digest of a row that retention removed
Wrong = tuple[str, str]  # where, what


def wrong(connection: sqlite3.Connection, said: Callable[..., Iterator[str]] | None = None) -> Iterator[Wrong]:
    """Each place in which something was changed, added or taken out since it was written; the earliest first. `said`: what the
    anchors say, see `Anchors.wrong`. In one read transaction, which is the caller's. About 100,000 rows a second; memory does not grow with the journal."""
    rows = {table: _Rows(connection, table) for table in COLUMNS}
    (gone,) = connection.execute("SELECT coalesce(max(link), 0) FROM removed").fetchone()
    before, last = START, 0
    for seq, at, covers, missing, hash in connection.execute(
        "SELECT seq, at, covers, gone, hash FROM chain ORDER BY seq"
    ):
        if seq != last + 1 and (covers or seq > gone):
            yield f"link {last + 1}", "is missing"
        if covers:
            try:
                yield from _added(rows, covers)
                found = hashed(before, at, covers, _digests(rows, covers, _gone(missing, seq, gone)))
            except (msgspec.MsgspecError, ValueError, KeyError):
                found = b""
            if found != hash:
                yield f"link {seq}", f"does not fit what it covers: {covers[:200]}"
        elif seq > gone:
            yield f"link {seq}", "has lost what it covers"
        before, last = hash, seq
    for table, left in rows.items():
        yield from ((f"{table} {seq}", "was added past the daemon") for seq in left.upto(None))
    if said is not None:
        yield from (("the journal", word) for word in said(lambda link: _hash(connection, link), last, gone))


class _Rows:
    """A table's rows in order, each looked at once."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self._table = table
        self._cursor = connection.execute(f"SELECT {COLUMNS[table]} FROM {table} ORDER BY seq")
        self._next: Any = self._cursor.fetchone()

    def upto(self, last: int | None) -> Iterator[int]:
        """The numbers of the rows up to this one, which are passed over."""
        while self._next is not None and (last is None or self._next[0] <= last):
            yield self._next[0]
            self._next = self._cursor.fetchone()

    def digests(self, last: int) -> Iterator[tuple[int, bytes]]:
        while self._next is not None and self._next[0] <= last:
            yield self._next[0], digest(self._table, self._next)
            self._next = self._cursor.fetchone()


def _added(rows: dict[str, _Rows], covers: str) -> Iterator[Wrong]:
    """Rows that lie before what comes next, and that no link covers."""
    for table, first, last in covered(covers):
        old, _, name = table.rpartition(" ")
        if old == BEFORE:
            for _ in rows[name].upto(last):
                pass  # from before the chain
        else:
            yield from ((f"{table} {seq}", "was added past the daemon") for seq in rows[table].upto(first - 1))


def _digests(rows: dict[str, _Rows], covers: str, gone: Gone) -> Iterator[bytes]:
    """Of the rows a link covers, in its order; those that are gone left theirs."""
    for table, _, last in covered(covers):
        if table in rows:
            found = gone.get(table, {}) | dict(rows[table].digests(last))
            yield from (found[seq] for seq in sorted(found))


def _gone(raw: bytes, link: int, removed: int) -> Gone:
    found: Gone = {}
    if raw and link > removed:
        raise ValueError("nothing so new was removed")
    for table, seq, one in msgspec.msgpack.decode(raw, type=list[tuple[str, int, bytes]]) if raw else ():
        found.setdefault(table, {})[seq] = one
    return found


def _hash(connection: sqlite3.Connection, link: int) -> bytes | None:
    found = connection.execute("SELECT hash FROM chain WHERE seq = ?", (link,)).fetchone()
    return bytes(found[0]) if found else None
