"""The doctor finds what was planted, and nothing in a sound journal."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from runtime.errors import Corrupt
from runtime.journal import Journal
from runtime.journal.doctor import examine
from runtime.messages import Action, Command, Outcome
from tests.journal.test_journal import decision, feedback, observation, percept


async def sound(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.put(observation(1))
        await journal.perceived(["ob-1"], percept(1))
        await journal.put(decision(1))
        await journal.put(
            Command(id="cm-1", decision_id="dc-1", actuator="lamp", action=Action(tool="yes"), expires_at=30.0, at=1.0)
        )
        await journal.put(Outcome(id="oc-1", decision_id="dc-1", command_id="cm-1", status="applied", at=2.0))
        await journal.put_feedback(feedback(1, 1, "acceptance"))
        await journal.put(observation(9000))
        await journal.perceived(["ob-9000"])


async def broken(path: Path) -> set[str]:
    return {finding.invariant for finding in await examine(path) if finding.state == "broken"}


async def test_a_sound_journal_has_nothing_broken(tmp_path: Path) -> None:
    await sound(tmp_path / "j.db")
    assert await broken(tmp_path / "j.db") == set()
    assert {f.invariant for f in await examine(tmp_path / "j.db") if f.state == "not checkable"} == {"I1", "I3", "I10"}


PLANTED = {
    "I4a": "UPDATE observation SET perceived = 0",
    "I4b": "DELETE FROM feedback; DELETE FROM outcome; DELETE FROM command; DELETE FROM decision",
    "I5a": "DELETE FROM outcome; DELETE FROM command",
    "I5b": "DELETE FROM outcome",
    "I6": "INSERT INTO outcome SELECT 99, 'oc-x', decision_id, command_id, at, status, reason, body FROM outcome",
    "I7": "UPDATE outcome SET at = 8000",
    "I8": "UPDATE feedback SET decision_id = 'nobody'",
    "I9": "UPDATE decision SET adapter = 'aaaaaaaaaaaa'",
    "I11": "UPDATE command SET at = -50",
}


@pytest.mark.parametrize("invariant", PLANTED)
async def test_a_planted_breakage_is_found(tmp_path: Path, invariant: str) -> None:
    await sound(tmp_path / "j.db")
    shell = sqlite3.connect(tmp_path / "j.db")
    shell.executescript(f"PRAGMA foreign_keys = OFF; {PLANTED[invariant]};")
    shell.close()
    assert invariant in await broken(tmp_path / "j.db")


async def test_no_journal_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match="no journal"):
        await examine(tmp_path / "none.db")
