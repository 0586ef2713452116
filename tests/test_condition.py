"""How the daemon stands: the gravest word wins, all causes are named, and every change is a row in the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import condition
from runtime import journal as journals
from runtime.condition import Condition, Watch
from runtime.journal import Journal
from runtime.metrics import Metrics

CASES = [
    ("", False, [], "NORMAL", ()),
    ("", False, ["broker is not ready"], "DEGRADED", ("broker is not ready",)),
    ("crashed", False, ["x"], "SAFE", ("crashed", "x")),
    ("crashed", True, ["x"], "HOLD", ("the kill switch is on", "crashed", "x")),
    ("", True, [], "HOLD", ("the kill switch is on",)),
]


@pytest.mark.parametrize(("safe", "killed", "degraded", "name", "causes"), CASES)
def test_the_gravest_wins(safe: str, killed: bool, degraded: list[str], name: str, causes: tuple[str, ...]) -> None:
    found = condition.of(safe=safe, killed=killed, degraded=degraded)
    assert (found.name, found.causes) == (name, causes)


async def test_the_oldest_of_too_many_rows_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "TRANSITIONS", 3)
    async with Journal.open(tmp_path / "journal.db") as journal:
        await journal.set_metadata("transaction", "stays")
        for at in range(5):
            await journal.add_transition({"at": at, "condition": "NORMAL"})
        assert [row["at"] for row in await journal.transitions()] == [4, 3, 2]
        assert await journal.metadata("transaction") == "stays"


async def test_every_change_is_a_row_and_a_figure(tmp_path: Path) -> None:
    states = [Condition("NORMAL"), Condition("NORMAL"), Condition("DEGRADED", ("a",)), Condition("DEGRADED", ("b",))]
    metrics, seen = Metrics(), iter(states)
    async with Journal.open(tmp_path / "journal.db") as journal:
        watch = Watch(lambda: next(seen), journal, metrics)
        for _ in states:
            await watch.look()
        rows = await journal.transitions()
        assert [(row["before"], row["condition"], row["causes"]) for row in rows] == [
            ("DEGRADED", "DEGRADED", ["b"]),
            ("NORMAL", "DEGRADED", ["a"]),
            ("", "NORMAL", []),
        ]
        assert len(await journal.transitions(1)) == 1
    assert b'corrigible_condition{name="DEGRADED"} 1.0' in metrics.text()
    assert b'corrigible_condition{name="NORMAL"} 0.0' in metrics.text()
