"""The doctor finds every breakage that is planted, and nothing in a sound journal."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runtime.errors import Corrupt
from runtime.journal import Journal, doctor
from runtime.messages import Action, Command, Decision, Feedback, Message, Observation, Outcome, Percept

DIM = Action(tool="lamp", arguments={"level": "dim"})


def loop(n: int, at: float) -> list[Message]:
    """One whole turn of the loop."""
    return [
        Observation(id=f"o{n}", topic="home/hall/light", payload=b"dark", at=at),
        Percept(id=f"p{n}", scope="hall", text=f"dark {n}", at=at),
        Decision(
            id=f"d{n}", percept_id=f"p{n}", scope="hall", actions=(DIM,), by="model", adapter="base",
            p_model=0.5, p_behaviour=1.0, at=at,
        ),
        Command(id=f"c{n}", decision_id=f"d{n}", actuator="lamp", action=DIM, expires_at=at + 10, at=at),
        Outcome(id=f"u{n}", decision_id=f"d{n}", command_id=f"c{n}", status="applied", at=at + 1),
        Feedback(id=f"f{n}", decision_id=f"d{n}", kind="acceptance", source="ann", at=at + 2),
    ]  # fmt: skip


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    async with Journal.open(path) as journal:
        for n in range(4):
            await journal.put(*loop(n, 1000.0 * n))
            await journal.perceived([f"o{n}"])
    return path


def vandalise(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def states(path: Path) -> dict[str, str]:
    return {finding.invariant: finding.state for finding in doctor.examine(path)}


def test_a_sound_journal(path: Path) -> None:
    found = states(path)
    assert list(found) == [f"I{n}" for n in range(1, 13)]
    assert "broken" not in found.values()
    assert {id for id, state in found.items() if state == "not checkable"} == {"I1", "I10"}


BREAKAGE = {
    "I4": "UPDATE observation SET perceived = 0 WHERE id = 'o0'",
    "I5": "UPDATE command SET action = '{\"tool\":\"lamp\"}' WHERE id = 'c1'",
    "I6": "INSERT INTO outcome (id, decision_id, command_id, at, status, reason, body) "
    "VALUES ('u9', 'd0', 'c0', 5, 'applied', '', '{\"id\":\"u9\"}')",
    "I7": "UPDATE command SET expires_at = at WHERE id = 'c2'",
    "I8": "UPDATE feedback SET decision_id = 'd77' WHERE id = 'f0'",
    "I9": "UPDATE decision SET adapter = 'abcdefabcdef' WHERE id = 'd3'",
    "I11": "UPDATE outcome SET command_id = NULL WHERE id = 'u3'",
    "I12": "UPDATE percept SET body = replace(body, 'p1', 'p7') WHERE id = 'p1'",
}


@pytest.mark.parametrize("invariant", BREAKAGE)
def test_planted_breakage_is_found(path: Path, invariant: str) -> None:
    vandalise(path, BREAKAGE[invariant])
    broken = {id for id, state in states(path).items() if state == "broken"}
    assert broken - {"I12"} == {invariant} - {"I12"}
    assert ("I12" in broken) == (invariant != "I4"), "the hash chain covers all but what is marked"


async def test_a_percept_that_was_passed_over_is_found(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.put(Percept(id="p8", scope="hall", text="dark again", at=3001.0))
        assert states(path)["I4"] == "ok", "it may still be its turn"
        await journal.put(*loop(9, 3002.0))
        await journal.perceived(["o9"])
    assert states(path)["I4"] == "broken"


def test_a_deleted_row_is_missed(path: Path) -> None:
    vandalise(path, "DELETE FROM observation WHERE id = 'o1'")
    assert next(f for f in doctor.examine(path) if f.invariant == "I12").detail.startswith("observation lacks 1 rows; ")


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"nothing of ours " * 400)
    with pytest.raises(Corrupt, match=r"journal\.db"):
        doctor.examine(path)
