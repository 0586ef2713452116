"""What a damaged journal noted beside its messages: modes, fence, counters of producers, what was shed. It is read from both ends of
each table up to the damage. The damaged file is the newer one; what it does not say stays as it was.
"""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from runtime.journal.retention import KEY as RETENTION

MODES_KEY = "modes"  # the note of what was switched
SAFEST = ("observe", "confirm", "apprentice", "act")  # the safer mode first
FARTHEST = 10**15  # no counter of a producer goes beyond that
METADATA = "INSERT INTO metadata VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
COUNTS: dict[str, tuple[tuple[str, ...], str]] = {  # table -> its key, and how a row is added
    "shed": (
        ("name", "minute"),
        "INSERT INTO shed VALUES (?, ?, ?) ON CONFLICT (name, minute) DO UPDATE SET count = max(count, excluded.count)",
    ),
    "producer": (
        ("producer", "boot"),
        "INSERT INTO producer VALUES (?, ?, ?) ON CONFLICT (producer, boot) DO UPDATE SET upto = max(upto, excluded.upto)",
    ),
    "heard": (("producer", "boot", "number"), "INSERT INTO heard VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"),
}
SETTLED = """DELETE FROM heard WHERE EXISTS (
      SELECT 1 FROM producer p WHERE p.producer = heard.producer AND p.boot = heard.boot AND p.upto >= heard.number)
    AND NOT EXISTS (SELECT 1 FROM gap g WHERE g.filled IS NULL AND g.producer = heard.producer AND g.boot = heard.boot
      AND g.first <= heard.number AND g.last >= heard.number)"""


def salvage(source: sqlite3.Connection, target: sqlite3.Connection) -> tuple[str, ...]:
    """Add what can be read; of which tables something could not, and "modes" if what was switched is not among what could."""
    target.execute("BEGIN")
    unread = list(_metadata(source, target))
    for table, (key, sql) in COUNTS.items():
        rows, whole = _read(source, table, key)
        if not (all([_added(target, sql, row) for row in rows]) and whole):
            unread.append(table)
    target.execute(SETTLED)
    target.execute("COMMIT")
    return tuple(unread)


def _metadata(source: sqlite3.Connection, target: sqlite3.Connection) -> list[str]:
    """How far retention came is told in links of the old chain, so it stays as it was."""
    rows, whole = _read(source, "metadata", ("rowid",))
    found: dict[str, Any] = {}
    for row in rows:
        try:
            found[str(row[0])] = msgspec.json.decode(row[1])
        except (msgspec.MsgspecError, TypeError, UnicodeError):
            whole = False
    found.pop(RETENTION, None)
    modes, unread = found.pop(MODES_KEY, None), [] if whole else ["metadata"]
    if _valid(modes):
        found[MODES_KEY] = modes if whole else _safer(_modes(target), modes)
    elif modes is not None or not whole:
        unread.append(MODES_KEY)
    for key, value in found.items():
        target.execute(METADATA, (key, msgspec.json.encode(value, order="sorted").decode()))
    return unread


def _read(source: sqlite3.Connection, table: str, key: tuple[str, ...]) -> tuple[list[Any], bool]:
    """Its rows, some perhaps twice, and whether these are all. A table that an older file does not have is empty."""
    rows = []
    for way in ("ASC", "DESC"):
        order = ", ".join(f"{column} {way}" for column in key)
        try:
            for row in source.execute(f"SELECT * FROM {table} ORDER BY {order}"):
                rows.append(row)
            return rows, True
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if str(error).startswith("no such table"):
                return [], True
    return rows, False


def _added(target: sqlite3.Connection, sql: str, row: Any) -> bool:
    """False for what cannot be."""
    if any(isinstance(value, int) and not 0 <= value <= FARTHEST for value in row):
        return False
    try:
        target.execute(sql, row)
    except (sqlite3.Error, UnicodeError):
        return False
    return True


def _valid(modes: Any) -> bool:
    return isinstance(modes, dict) and all(mode in SAFEST for mode in modes.values())


def _modes(target: sqlite3.Connection) -> dict[str, str]:
    found = target.execute("SELECT value FROM metadata WHERE key = ?", (MODES_KEY,)).fetchone()
    return msgspec.json.decode(found[0]) if found else {}


def _safer(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """Where the file is damaged, a mode that is bolder than in the backup is not believed."""
    return {one: min((m[one] for m in (before, now) if one in m), key=SAFEST.index) for one in {**before, **now}}
