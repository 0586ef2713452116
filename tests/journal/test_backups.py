"""Backup, restore, and a damaged journal: everything starts again from what is whole, and what is missing is told."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.errors import Corrupt, NotFound, Unavailable
from runtime.journal import Journal, Settled, backups, doctor, rescue
from runtime.messages import Gap, Observation

ROWS = 300


class Killed(BaseException):
    """The process ends here."""


@contextmanager
def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """At the n-th call that changes something on the disk."""
    calls = itertools.count(1)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if next(calls) == number:
                raise Killed
            return call(*arguments, **named)

        return wrapper

    with monkeypatch.context() as patch:
        for owner, name in (
            (Path, "rename"), (Path, "mkdir"), (Path, "write_bytes"), (shutil, "copyfile"), (shutil, "rmtree"), (backups, "sync"),
            (backups, "sync_all"), (rescue, "sync"), (rescue, "_note"),
        ):  # fmt: skip
            patch.setattr(owner, name, counted(getattr(owner, name)))
        yield


async def fill(data: Path, start: int, end: int) -> None:
    data.mkdir(exist_ok=True)
    async with Journal.open(data / "journal.db") as journal:
        await journal.put(
            *(Observation(id=f"o{n}", topic="t", payload=b"x" * 300, at=float(n)) for n in range(start, end))
        )


async def ids(data: Path) -> set[str]:
    async with Journal.open(data / "journal.db") as journal:
        return {observation.id for observation in await journal.unperceived()}


def named(*spans: tuple[int, int]) -> set[str]:
    return {f"o{n}" for start, end in spans for n in range(start, end)}


def damage(path: Path, seed: int, pages: int = 3) -> None:
    """Overwrite some pages after the first."""
    chance, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(pages):
        at = chance.randrange(1, len(data) // 4096) * 4096
        data[at : at + 4096] = chance.randbytes(4096)
    path.write_bytes(data)


def adapter(data: Path, name: str) -> None:
    folder = data / "adapters" / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(name.encode())


async def test_a_backup_of_a_journal_in_use_is_restored(tmp_path: Path) -> None:
    data = tmp_path / "data"
    adapter(data, "one")
    async with Journal.open(data / "journal.db") as journal:
        await journal.put(Observation(id="before", topic="t", payload=b"1", at=1.0))
        backup = await asyncio.to_thread(backups.make, data)
        await journal.put(Observation(id="after", topic="t", payload=b"1", at=2.0))
    adapter(data, "two")
    aside = backups.restore(data, backup)
    assert aside is not None
    assert await ids(data) == {"before"}
    assert [path.name for path in (data / "adapters").iterdir()] == ["one"]
    assert {path.name for path in aside.iterdir()} >= {"journal.db", "adapters"}
    assert all(finding.state != "broken" for finding in doctor.examine(data / "journal.db"))
    backups.verify(backup)


async def test_what_is_no_sound_backup_is_named_and_changes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await fill(data, 0, 10)
    backup = backups.make(data, tmp_path / "kept")
    with pytest.raises(Unavailable, match="there already"):
        backups.make(data, backup)
    with pytest.raises(NotFound, match="no backup"):
        backups.restore(data, tmp_path)
    (backup / "journal.db").write_bytes(b"other")
    with pytest.raises(Corrupt, match="not what it was"):
        backups.restore(data, backup)
    manifest = (backup / "manifest.json").read_text().replace("journal.db", "../../secret")
    (backup / "manifest.json").write_text(manifest)
    with pytest.raises(Corrupt):
        backups.restore(data, backup)
    assert await ids(data) == named((0, 10))


async def test_killed_at_any_step_of_a_backup_there_is_a_whole_one_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    await fill(data, 0, 20)
    adapter(data, "one")
    for number in itertools.count(1):
        try:
            with killed_at(number, monkeypatch):
                backups.make(data, clock=1e9 + number)
        except Killed:
            for backup in backups.every(data):
                backups.verify(backup)
            continue
        break
    assert number > 4
    assert backups.newest(data) is not None


@pytest.mark.parametrize("cause", ["damage", "no room"])
async def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    data = tmp_path / "data"
    await fill(data, 0, ROWS)
    if cause == "damage":
        damage(data / "journal.db", 3)
    else:
        monkeypatch.setattr(backups, "sync_all", raising(OSError(errno.ENOSPC, "no room")))
    for number in range(3):
        with pytest.raises(Corrupt if cause == "damage" else Unavailable):
            backups.make(data, clock=1e9 + number)
    assert list((data / "backups").iterdir()) == []


def raising(error: Exception) -> Callable[..., Any]:
    def call(*_: Any) -> None:
        raise error

    return call


async def test_the_next_backup_removes_what_kills_left_and_nothing_else(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await fill(data, 0, 20)
    left = (".2026-11-26T17-20-00Z.partial", "2026-11-25T17-20-00Z")  # being made, and being removed
    others = (".hidden.partial", "holidays", "2026")
    for name in (*left, *others):
        (data / "backups" / name).mkdir(parents=True)
        (data / "backups" / name / "journal.db").write_bytes(b"x")
    older = backups.make(data, clock=1e9)
    made = backups.make(data, clock=2e9)
    assert {path.name for path in (data / "backups").iterdir()} == {older.name, made.name, *others}


async def test_killed_at_any_step_of_a_restore_the_next_start_ends_it_or_nothing_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in itertools.count(1):
        data = tmp_path / str(number)
        await fill(data, 0, 20)
        adapter(data, "one")
        backup = backups.make(data)
        await fill(data, 20, 30)
        try:
            with killed_at(number, monkeypatch):
                backups.restore(data, backup)
        except Killed:
            assert rescue.ensure(data) is None
            assert await ids(data) in (named((0, 20)), named((0, 30)))
            assert (data / "adapters" / "one").is_dir()
            continue
        assert await ids(data) == named((0, 20))
        break
    assert number > 6


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(seed=st.integers(0, 2**32 - 1), pages=st.integers(1, 12), backed=st.booleans(), torn=st.booleans())
def test_a_damaged_journal_starts_again_and_says_what_is_missing(
    tmp_path: Path, seed: int, pages: int, backed: bool, torn: bool
) -> None:
    data = tmp_path / "data"
    shutil.rmtree(data, ignore_errors=True)
    asyncio.run(fill(data, 0, ROWS // 2))
    if backed:
        backups.make(data)
    asyncio.run(fill(data, ROWS // 2, ROWS))
    damage(data / "journal.db", seed, pages)
    if torn:
        whole = (data / "journal.db").read_bytes()
        (data / "journal.db").write_bytes(whole[: len(whole) * 2 // 3])
    lost = rescue.ensure(data)
    if lost is None:  # the pages were free, or of an index that agrees
        return
    left = asyncio.run(ids(data))
    assert left <= named((0, ROWS))
    assert not backed or left >= named((0, ROWS // 2))
    numbers = sorted(int(name[1:]) for name in left)
    assert sum(lost.holes.values()) == (numbers[-1] + 1 - len(numbers) if numbers else 0)
    findings = {finding.invariant: finding for finding in doctor.examine(data / "journal.db")}
    assert findings["I12"].state == "ok"
    assert "are known to be missing" in findings["I12"].detail
    assert rescue.ensure(data) is None


def test_what_can_be_read_of_a_damaged_journal_is_saved(tmp_path: Path) -> None:
    saved = []
    for seed in range(8):
        data = tmp_path / str(seed)
        asyncio.run(fill(data, 0, ROWS))
        damage(data / "journal.db", seed, 1)
        if lost := rescue.ensure(data):
            saved.append(lost.saved)
            assert len(asyncio.run(ids(data))) == lost.saved
    assert max(saved) > ROWS // 2


def spoil(path: Path, table: str) -> None:
    """Damage what this table begins with."""
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = random.Random(0).randbytes(4096)
    path.write_bytes(data)


async def numbered(journal: Journal, *numbers: int) -> None:
    for number in numbers:
        await journal.put_numbered(Observation(id=f"p{number}", topic="t", payload=b"1", at=1.0), "p", "b", number)


async def noted(data: Path) -> None:
    """A backup, and what was noted after it."""
    await fill(data, 0, 100)
    gap = Gap(id="gp-1", producer="p", boot="b", first=2, last=2, at=1.0)
    async with Journal.open(data / "journal.db") as journal:
        await journal.set_metadata("modes", {"lamp": "act", "bell": "observe"})
        await numbered(journal, 1, 3)
        await journal.settle([Settled("p", "b", 1, 3, (gap,))])
        await numbered(journal, 4)
    backups.make(data)
    async with Journal.open(data / "journal.db") as journal:
        await journal.set_metadata("modes", {"lamp": "observe", "bell": "act"})
        await journal.set_metadata("fence", 7)
        await journal.set_metadata("retention", 10**6)
        await journal.shed({("qos 0", 1): 500})
        await numbered(journal, 2, 4, 5, 7)
        await journal.settle([Settled("p", "b", 2, 5, (replace(gap, filled=2.0),))])


async def test_notes_that_are_younger_than_the_backup_are_saved(tmp_path: Path) -> None:
    await noted(tmp_path)
    spoil(tmp_path / "journal.db", "observation_topic")
    lost = rescue.ensure(tmp_path)
    assert lost is not None
    assert lost.unread == ()
    async with Journal.open(tmp_path / "journal.db") as journal:
        assert await journal.metadata("modes") == {"lamp": "observe", "bell": "act"}
        assert await journal.metadata("fence") == 7
        assert await journal.metadata("retention") is None, "it counts links of the chain that is gone"
        assert await journal.let_go() == {"qos 0": 500}
        assert await journal.heard() == [("p", "b", 5, None), ("p", "b", 0, 7)]
        assert await journal.open_gaps() == []


async def test_notes_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    await noted(tmp_path)
    spoil(tmp_path / "journal.db", "metadata")
    spoil(tmp_path / "journal.db", "shed")
    lost = rescue.ensure(tmp_path)
    assert lost is not None
    assert "notes (metadata, shed) could not be read" in lost.told
    assert "the modes that were switched are those of the backup" in lost.told
    async with Journal.open(tmp_path / "journal.db") as journal:
        assert await journal.metadata("modes") == {"lamp": "act", "bell": "observe"}
        assert await journal.lost() == lost.told
        assert await journal.heard() == [("p", "b", 5, None), ("p", "b", 0, 7)]


async def test_of_notes_that_can_be_read_in_part_the_safer_mode_holds(tmp_path: Path) -> None:
    await noted(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        connection.execute("INSERT INTO metadata VALUES ('torn', '{')")
        connection.commit()
    spoil(tmp_path / "journal.db", "observation_topic")
    lost = rescue.ensure(tmp_path)
    assert lost is not None
    assert lost.unread == ("metadata",)
    async with Journal.open(tmp_path / "journal.db") as journal:
        assert await journal.metadata("modes") == {"lamp": "observe", "bell": "observe"}


async def test_killed_at_any_step_of_a_rescue_the_next_start_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in itertools.count(1):
        data = tmp_path / str(number)
        await fill(data, 0, 100)
        backups.make(data)
        await fill(data, 100, 200)
        (data / "journal.db").write_bytes(b"\0" * 5000)
        try:
            with killed_at(number, monkeypatch):
                rescue.ensure(data)
        except Killed:
            rescue.ensure(data)
            assert await ids(data) == named((0, 100))
            async with Journal.open(data / "journal.db") as journal:
                assert "was damaged" in await journal.lost()
                assert (data / (await journal.metadata("lost"))[-1]["aside"] / "journal.db").is_file()
            continue
        break
    assert number > 4


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
async def test_a_torn_write_ahead_log_costs_nothing_that_was_checkpointed(tmp_path: Path, part: float) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    await fill(data, 0, 50)
    copy.mkdir()
    async with Journal.open(data / "journal.db") as journal:
        await journal.put(*(Observation(id=f"w{n}", topic="t", payload=b"x" * 300, at=1.0) for n in range(50)))
        for name in ("journal.db", "journal.db-wal"):
            shutil.copyfile(data / name, copy / name)
    log = (copy / "journal.db-wal").read_bytes()
    (copy / "journal.db-wal").write_bytes(log[: int(len(log) * part)])
    rescue.ensure(copy)
    assert await ids(copy) >= named((0, 50))


async def test_a_lock_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    await fill(data, 0, 20)
    with closing(sqlite3.connect(data / "journal.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0.0))
        with pytest.raises(Unavailable, match="nothing was changed"):
            rescue.ensure(data)
    assert await ids(data) == named((0, 20))
    assert not list(data.glob("damaged-*"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a small file system needs root")
def test_a_full_disk_at_the_start_is_no_damage(tmp_path: Path) -> None:
    data, disk = tmp_path / "data", tmp_path / "disk"
    asyncio.run(fill(data, 0, 20))
    disk.mkdir()
    script = (
        'mount -t tmpfs -o size=2m tmpfs "$1" && cp "$2"/journal.db "$1" && head -c 400000 /dev/zero > "$1/ballast"; '
        'cat /dev/zero > "$1/filler" 2>/dev/null; "$3" -c "'
        "import sys; from pathlib import Path; from runtime.journal import rescue; print(rescue.ensure(Path(sys.argv[1])))"
        '" "$1"; ls "$1"'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(disk), str(data), sys.executable], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stdout.split() == ["None", "filler", "journal.db"], done.stderr
