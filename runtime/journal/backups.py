"""Copies from which everything starts again: the journal as it was at one moment, and the adapters, with a hash of each file.

    data/backups/2026-11-26T17-20-00Z/   journal.db  adapters/…  manifest.json

A backup is made beside its name, synced and renamed, so one that has its name is whole; what a kill left of one is removed by the
next. The journal is read through a connection of its own, which only reads: nobody who writes waits for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import structlog

from runtime.disk import sync, sync_all
from runtime.errors import CorrigibleError, Corrupt, NotFound, Unavailable
from runtime.journal.anchor import Anchors

FOLDER, MANIFEST, JOURNAL, ADAPTERS = "backups", "manifest.json", "journal.db", "adapters"
STAGED = ".restore"  # a whole backup that is about to take the journal's place
HOUR = 3600.0  # seconds
FIRST = 300.0  # seconds after a start, at most, until a backup that is due
CHUNK = 1 << 20
NAMED = "%Y-%m-%dT%H-%M-%SZ"
PARTIAL = ".partial"

log = structlog.get_logger("backup")
_alone = (
    threading.Lock()
)  # who holds the data directory makes one backup at a time, so that what else is half made is a leftover


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    created: float
    files: dict[str, str]  # path within the backup -> SHA-256


def make(data: Path, to: Path | None = None, *, clock: float | None = None) -> Path:
    """Copy journal and adapters of a data directory, which may be in use; where the copy is. Raises Unavailable or Corrupt."""
    now = time.time() if clock is None else clock
    target = to or data / FOLDER / time.strftime(NAMED, time.gmtime(now))
    with _alone:
        if target.exists():
            raise Unavailable(f"{target} is there already; name another place for the backup")
        for left in unfinished(data):
            shutil.rmtree(left, ignore_errors=True)
        partial = target.with_name(f".{target.name}{PARTIAL}")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            _fill(data, partial, now)
            partial.rename(target)
            sync(target.parent)
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError):
                raise Unavailable(f"the backup to {target} failed: {error}") from None
            raise
    return target


def _fill(data: Path, partial: Path, now: float) -> None:
    partial.mkdir(parents=True)
    _copy_journal(data / JOURNAL, partial / JOURNAL)
    if (data / ADAPTERS).is_dir():
        shutil.copytree(data / ADAPTERS, partial / ADAPTERS, copy_function=_linked)
    files = {path.relative_to(partial).as_posix(): sha256(path) for path in _files(partial)}
    (partial / MANIFEST).write_bytes(msgspec.json.encode(Manifest(created=now, files=files)))
    sync_all(partial)


def unfinished(data: Path) -> list[Path]:
    """What a kill left of a backup that was being made, or removed: folders that are named as we name them, and no backups."""
    found = (path for path in (data / FOLDER).glob("*") if path.is_dir() and not path.is_symlink())
    return [path for path in found if _ours(path.name) and (path.name[0] == "." or not (path / MANIFEST).exists())]


def _ours(name: str) -> bool:
    stem = name[1:].removesuffix(PARTIAL) if name.startswith(".") and name.endswith(PARTIAL) else name
    with suppress(ValueError):
        return bool(time.strptime(stem, NAMED))
    return False


def verify(backup: Path) -> Manifest:
    """What it says it holds, after looking at every byte. Raises NotFound or Corrupt naming the file."""
    try:
        manifest = msgspec.json.decode((backup / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise NotFound(f"{backup} is no backup: it has no {MANIFEST}; they are in data/{FOLDER}") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise Corrupt(f"{backup / MANIFEST} cannot be read: {error}; take another backup") from None
    if JOURNAL not in manifest.files:
        raise Corrupt(f"{backup} holds no journal; take another backup")
    for name, digest in manifest.files.items():
        path = backup / name
        if not path.resolve().is_relative_to(backup.resolve()):
            raise Corrupt(f"{backup / MANIFEST} names {name!r}, which is outside of it; take another backup")
        if not path.is_file() or sha256(path) != digest:
            raise Corrupt(f"{path} is not what it was when the backup was made; take another backup")
    return manifest


def every(data: Path) -> list[Path]:
    """The backups of a data directory, newest first; whether they are sound is another question."""
    return sorted((path.parent for path in (data / FOLDER).glob(f"*/{MANIFEST}")), reverse=True)


def newest(data: Path) -> Path | None:
    """The newest one that is sound."""
    for backup in every(data):
        with suppress(CorrigibleError):
            verify(backup)
            return backup
    return None


def restore(data: Path, backup: Path, anchors: Anchors | None = None) -> Path | None:
    """Put a backup in the place of what is there, under the lock; where that went. Killed at any moment, it is either not begun
    or ended by the next start (`finish`). Raises NotFound, Corrupt or Unavailable."""
    manifest = verify(backup)
    partial = data / f"{STAGED}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / ADAPTERS).mkdir(parents=True)  # a backup without versions replaces the versions, too
        for name in manifest.files:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(backup / name, partial / name)
        sync_all(partial)
        partial.rename(data / STAGED)
        sync(data)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise Unavailable(f"{backup} could not be copied to {data}: {error}") from None
    return finish(data, anchors)


def finish(data: Path, anchors: Anchors | None = None) -> Path | None:
    """Put what is staged into its place, and what was there aside; None if nothing is staged. The anchors are told first."""
    staged = data / STAGED
    if not staged.is_dir():
        return None
    if (staged / JOURNAL).exists():
        (anchors or Anchors.of(data)).replaced(staged / JOURNAL)
    aside = data / f"replaced-{time.time_ns()}"
    for name in (JOURNAL, ADAPTERS):
        if not (staged / name).exists():
            continue  # it is in its place since before we were killed
        for old in (data / name, *(data / f"{name}{end}" for end in ("-wal", "-shm"))):
            if old.exists():
                aside.mkdir(exist_ok=True)
                old.rename(aside / old.name)
        (staged / name).rename(data / name)
    sync(data)
    shutil.rmtree(staged)
    return aside if aside.exists() else None


async def regularly(data: Path, hours: float, keep: int) -> None:
    """A backup whenever the newest one is `hours` old, for ever; the newest `keep` stay."""
    while hours:
        await asyncio.sleep(min(FIRST, hours * HOUR / 10))
        found = every(data)
        if found and time.time() - found[0].stat().st_mtime < hours * HOUR:
            continue
        try:
            made = await asyncio.to_thread(make, data)
        except CorrigibleError as error:
            log.error("no backup", error=str(error))
            await asyncio.sleep(FIRST)
            continue
        log.info("backup", path=str(made))
        for old in every(data)[keep:]:
            await asyncio.to_thread(shutil.rmtree, old, True)


def _copy_journal(source: Path, target: Path) -> None:
    """One read transaction, so that it is the state of one moment. Raises NotFound or Corrupt."""
    if not source.exists():
        raise NotFound(f"there is no journal at {source}")
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")  # one file, complete by itself
            if (found := new.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise Corrupt(f"{source} is damaged ({found}); no backup is made of it, `corrigible doctor` says more")
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"{source} could not be copied: {error}") from None


def _linked(source: str, target: str) -> None:
    """Adapter files never change: another name is as good as a copy, where it is the same disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return digest.hexdigest()
