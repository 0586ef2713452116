"""A damaged journal at the start: it is put aside, the newest sound backup takes its place, and what can still be read of
the damaged one is added. What is missing after that is written down and told everywhere; it is never silent.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

from runtime.disk import sync
from runtime.errors import Unavailable
from runtime.journal import backups, chain, notes, opening
from runtime.journal.anchor import Anchors
from runtime.journal.ballast import NAME as BALLAST
from runtime.journal.rows import TABLES
from runtime.messages import Message

LOST_KEY = "lost"  # the journal's note of what was lost, a list
RESCUED = ".rescued"  # what takes the damaged one's place
CHANGING = ("cycle", "gap")  # rows of these are replaced by newer ones with the same id
FARTHEST = 1 << 24  # rows that are stepped over, at most, to find one that can be read

log = structlog.get_logger("journal")


class Lost(Message, frozen=True, kw_only=True):
    """What became of a damaged journal."""

    at: float
    damage: str  # in SQLite's words
    backup: str  # the one that took its place; "" = there was none
    since: float  # the moment up to which nothing is missing
    saved: int  # younger rows that could be read
    holes: dict[str, int]  # table -> rows that are known to be missing
    aside: str  # where the damaged file lies
    unread: tuple[
        str, ...
    ] = ()  # of what has no rows to count: tables, and "modes", that could not be read or not wholly

    @property
    def told(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.since)) if self.since else "its beginning"
        return (
            f"the journal was damaged ({self.damage[:100]}); since {when} UTC {self.saved} rows were saved, and"
            f" {sum(self.holes.values())} are known to be missing; there may have been younger ones{self._unread}; the damaged file is in {self.aside}"
        )

    @property
    def _unread(self) -> str:
        """What of the notes is as old as the backup, or gone."""
        origin = "are those of the backup" if self.backup else "are not known any more"
        tables = ", ".join(name for name in self.unread if name != notes.MODES_KEY)
        noted = f"; notes ({tables}) could not be read, or not wholly" if tables else ""
        return noted + (f"; the modes that were switched {origin}" if notes.MODES_KEY in self.unread else "")


def ensure(data: Path, anchors: Anchors | None = None) -> Lost | None:
    """A journal that can be opened, whatever was there; what was lost, if that was found out now. Under the lock."""
    anchors = anchors or Anchors.of(data)
    backups.finish(data, anchors)
    journal, rescued = data / backups.JOURNAL, data / RESCUED
    if rescued.exists():
        _change(journal, rescued, _noted(rescued).aside)  # we were killed just before
    damage = _damage(journal) if journal.exists() else ""
    if not damage:
        return None
    partial = data / f"{RESCUED}.partial"
    partial.unlink(missing_ok=True)
    backup = backups.newest(data)
    since = backups.verify(backup).created if backup is not None else 0.0
    if backup is not None:
        shutil.copyfile(backup / backups.JOURNAL, partial)
    aside = f"damaged-{time.time_ns()}"
    with closing(sqlite3.connect(partial, isolation_level=None)) as target:
        opening.migrate(target, partial)
        target.execute("PRAGMA foreign_keys = ON")
        links = chain.Chain(target)
        saved, holes, unread = _salvage(journal, target)
        links.extend(target, time.time())  # as they were found
        lost = Lost(
            at=time.time(), damage=damage, backup=backup.name if backup else "", since=since, saved=saved, holes=holes,
            aside=aside, unread=unread,
        )  # fmt: skip
        _note(target, lost)
    sync(partial)
    anchors.replaced(partial, since=links.head.seq)
    partial.rename(rescued)
    _change(journal, rescued, aside)
    log.error("damaged journal", told=lost.told)
    return lost


def _damage(journal: Path) -> str:
    """As `opening.check`; where the disk is full, once more with the room that was set aside for that."""
    try:
        return opening.check(journal)
    except Unavailable:
        ballast = journal.with_name(BALLAST)
        if not ballast.exists():
            raise
        ballast.unlink()
        return opening.check(journal)


def _change(journal: Path, rescued: Path, aside: str) -> None:
    """The rescued one takes the place of the damaged one, which is put aside."""
    folder = journal.parent / aside
    for name in (journal, *(journal.with_name(f"{journal.name}{end}") for end in ("-wal", "-shm"))):
        if name.exists():
            folder.mkdir(exist_ok=True)
            name.rename(folder / name.name)
    rescued.rename(journal)
    sync(journal.parent)


def _salvage(damaged: Path, target: sqlite3.Connection) -> tuple[int, dict[str, int], tuple[str, ...]]:
    """Add the rows that can be read and that the backup lacks: how many, of every table how many before the last of them are
    missing, and what of the notes could not be read."""
    saved, holes = 0, {}
    removed = dict(target.execute("SELECT name, sum(rows) FROM removed GROUP BY name"))
    with closing(sqlite3.connect(damaged, isolation_level=None)) as source:
        for table in TABLES:
            target.execute("BEGIN")
            before, last = _extent(target, table)
            for row in _readable(source, table, 0 if table in CHANGING else last):
                _add(target, table, row)
            target.execute("COMMIT")
            rows, seq = _extent(target, table)
            saved += rows - before
            missing = seq - rows - removed.get(table, 0)
            if missing > 0:
                holes[table] = missing
        unread = notes.salvage(source, target)
    return saved, holes, unread


def _extent(target: sqlite3.Connection, table: str) -> tuple[int, int]:
    """How many rows, and the last `seq`."""
    rows, seq = target.execute(f"SELECT count(*), coalesce(max(seq), 0) FROM {table}").fetchone()
    return rows, seq


def _readable(source: sqlite3.Connection, table: str, last: int) -> Iterator[dict[str, Any]]:
    """Rows after `last`, in order; what cannot be read is stepped over, in ever larger steps."""
    step = 0
    while step <= FARTHEST:
        try:
            cursor = source.execute(f"SELECT * FROM {table} WHERE seq > ? ORDER BY seq", (last + step,))
            names = [column[0] for column in cursor.description]
            for row in cursor:
                found = dict(zip(names, row, strict=True))
                last, step = found["seq"], 0
                yield found
            return
        except (sqlite3.Error, UnicodeDecodeError):
            step = max(1, 2 * step)


def _add(target: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    """Not one that is not what it was, or that belongs to one that is missing."""
    with suppress(sqlite3.Error, msgspec.MsgspecError, UnicodeError, KeyError, TypeError):
        if msgspec.json.decode(row["body"])["id"] != row["id"]:
            return
        sql = f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(':' + name for name in row)})"
        if table in CHANGING:
            newer = ", ".join(f"{name} = excluded.{name}" for name in row if name not in ("id", "seq"))
            sql += f" ON CONFLICT (id) DO UPDATE SET {newer}"
        target.execute(sql, row)


def _noted(rescued: Path) -> Lost:
    """What was written into it about itself."""
    with closing(sqlite3.connect(rescued)) as connection:
        (value,) = connection.execute("SELECT value FROM metadata WHERE key = ?", (LOST_KEY,)).fetchone()
    return msgspec.json.decode(value, type=list[Lost])[-1]


def _note(target: sqlite3.Connection, lost: Lost) -> None:
    """One more entry of the list."""
    found = target.execute("SELECT value FROM metadata WHERE key = ?", (LOST_KEY,)).fetchone()
    every = [*(msgspec.json.decode(found[0]) if found else ()), msgspec.to_builtins(lost)]
    sql = "INSERT INTO metadata VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    target.execute(sql, (LOST_KEY, msgspec.json.encode(every).decode()))
