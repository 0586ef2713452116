"""A disk that is full, fails, or does not keep its word: what was told "stored" is there, and it goes on by itself."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import Unavailable
from runtime.journal import Journal, doctor, opening
from runtime.journal.ballast import Ballast
from runtime.messages import Observation

VICTIM = [sys.executable, "-m", "tests.journal.disk_victim"]
ROOT = Path(__file__).parent.parent.parent
TMPFS = (
    'mount -t tmpfs -o size=4m tmpfs "$1" && "$2" -m tests.journal.disk_victim full "$1" && cp "$1"/journal.db* "$3"'
)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run(*command: str) -> dict[str, Any]:
    return told(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a small file system needs root")
def test_a_full_disk_spends_the_ballast_keeps_what_it_said_and_recovers(tmp_path: Path) -> None:
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    copy.mkdir()
    found = run("unshare", "-m", "sh", "-c", TMPFS, "sh", str(disk), sys.executable, str(copy))
    assert (found["before"], found["spent"], found["after"], found["healthy"]) == (False, [True, False], False, True)
    assert found["readable"] == len(found["kept"]) > 20  # there was room for ten without the ballast
    assert found["ballast"] == 1 << 20
    assert doctor.missing(copy / "journal.db", [*found["kept"], "again"]) == []


def test_after_an_error_of_the_disk_the_journal_is_opened_anew(tmp_path: Path) -> None:
    found = run(*VICTIM, "limit", str(tmp_path))
    assert (found["ill"], found["healthy"]) == (False, True)
    assert doctor.missing(tmp_path / "journal.db", [*found["kept"], "again"]) == []
    assert all(finding.state != "broken" for finding in doctor.examine(tmp_path / "journal.db"))


def test_a_setting_that_did_not_take_is_told() -> None:
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(Unavailable, match="answers 'memory' to journal_mode"),
    ):
        opening.prepare(connection, Path("j.db"))  # fmt: skip


def test_without_room_there_is_no_ballast_and_no_error(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "ballast", 1 << 40)
    assert (ballast.low, ballast.release()) == (True, False)
    assert not Ballast(tmp_path / "ballast", 0).low


async def made(path: Path, rows: int) -> None:
    async with Journal.open(path) as journal:
        await journal.put(*(Observation(id=f"o{n}", topic="t", payload=b"x" * 500, at=float(n)) for n in range(rows)))


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(place=st.floats(0, 1, exclude_max=True), size=st.integers(1, 5000), seed=st.integers(0, 2**32 - 1))
def test_looking_for_damage_never_raises(tmp_path: Path, place: float, size: int, seed: int) -> None:

    path = tmp_path / "j.db"
    for old in tmp_path.iterdir():
        old.unlink()
    asyncio.run(made(path, 100))
    assert opening.check(path) == ""
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    data[at : at + size] = random.Random(seed).randbytes(len(data[at : at + size]))
    path.write_bytes(data)
    opening.check(path)


async def test_what_is_no_database_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    await made(path, 100)
    path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])
    assert "not a database" in opening.check(path)
