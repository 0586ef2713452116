"""How the journal's file is opened: with the settings that "durable" hangs on, each read back, for a pragma fails in silence."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from runtime.errors import Corrupt, Unavailable

SETTINGS: tuple[tuple[str, str, object], ...] = (  # name, what is asked for, what SQLite has to answer
    ("journal_mode", "WAL", "wal"),
    ("synchronous", "FULL", 2),
    ("foreign_keys", "ON", 1),
)
SCHEMA = ("schema.sql", *(f"schema_{number}.sql" for number in range(2, 9)))
SCHEMA_VERSION = len(SCHEMA)
CHECK = 5.0  # seconds that a start gives to looking for damage; what is larger is looked at by `corrigible doctor`
PRIMARY = 0xFF  # the part of SQLite's error code that says what kind it is
NO_DAMAGE = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM,
)  # fmt: skip
STEPS = 10_000  # of SQLite's machine between two looks at the clock


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set what a commit's durability hangs on. Raises Unavailable where the file system does not allow it."""
    for name, wanted, answer in SETTINGS:
        connection.execute(f"PRAGMA {name} = {wanted}")
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != answer:
            raise Unavailable(
                f"{path}: SQLite answers {found!r} to {name} = {wanted}, so nothing would survive a power cut; put [agent] data on a local disk"
            )


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to SCHEMA_VERSION, each step in a transaction. Raises Corrupt for a file from the future."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Corrupt(
            f"{path} was written by a newer Corrigible (schema {version}, this one knows {SCHEMA_VERSION}); upgrade first"
        )
    for number, script in enumerate(SCHEMA, start=1):
        if version < number:
            text = files("runtime.journal").joinpath(script).read_text(encoding="utf-8")
            connection.executescript(f"BEGIN; {text} PRAGMA user_version = {number}; COMMIT;")


def check(path: Path, seconds: float = CHECK) -> str:
    """What is damaged, "" if nothing was found in that time. A disk that is full, a lock, a missing right are no damage: raises
    Unavailable, and the file is left alone."""
    until = time.monotonic() + seconds
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > until, STEPS)
            found = [str(line) for (line,) in connection.execute("PRAGMA quick_check(1)")]
            return "" if found == ["ok"] else "; ".join(found)
    except UnicodeDecodeError as error:  # SQLite's own message quotes the damage
        return str(error)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & PRIMARY
        if code == sqlite3.SQLITE_INTERRUPT:
            return ""
        if code not in NO_DAMAGE:
            return str(error)
        raise Unavailable(
            f"{path} cannot be looked at: {error}; mend that (space, rights, disk), nothing was changed"
        ) from None


def reopened(old: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """After an error of the disk nothing that a connection believes is worth anything: a new one, looked at again.
    Raises Corrupt or Unavailable."""
    old.close()
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & PRIMARY in NO_DAMAGE:
            raise Unavailable(f"{path} cannot be opened again: {error}") from None
        raise Corrupt(f"{path} cannot be opened again: {error}") from None
    return connection
