"""What the journal knows beyond lessons: decisions by chance with their rewards, and the situations of the reference set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.journal import Journal
from runtime.learning import reference
from runtime.learning.evidence import CHANCES, earned, logged, situations
from runtime.messages import Action, Feedback, Forgotten
from tests.stages import BRIGHT, DIM, decision, percept


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "j.db") as opened:
        yield opened


def word(number: int, kind: str, of: int, **said: Any) -> Feedback:
    return Feedback(
        id=f"fb-{number}", decision_id=f"dc-{of}", kind=kind, source="Ana", at=float(number), **said  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("said", "reward", "right"),
    [
        ([], None, None),
        ([word(0, "acceptance", 0)], 1.0, BRIGHT),
        ([word(0, "correction", 0, action=DIM)], 0.0, DIM),
        ([word(0, "override", 0, action=DIM)], 0.0, DIM),
        ([word(0, "correction", 0, action=BRIGHT)], 1.0, BRIGHT),
        ([word(0, "rating", 0, rating=-1.0)], 0.0, None),
        ([word(0, "rating", 0, rating=0.5)], 0.75, None),
        ([word(0, "rating", 0, rating=-1.0), word(1, "rating", 0, rating=1.0)], 1.0, None),
        ([word(0, "correction", 0, action=DIM), word(1, "rating", 0, rating=1.0)], 0.0, DIM),
    ],
)
def test_what_people_say_is_a_reward(said: list[Feedback], reward: float | None, right: Action | None) -> None:
    assert earned(BRIGHT, said) == (reward, right)


async def test_only_decisions_by_chance_that_people_spoke_of_are_logged(journal: Journal) -> None:
    """Not a certain one, not one in silence, not what was taken back, not the table's, not a rehearsal."""
    for number in range(6):
        made = replace(decision(number, BRIGHT, float(number)), p_behaviour=1.0 if number == 1 else 0.9)
        made = replace(made, by="table") if number == 4 else made
        await journal.put(replace(percept(number, f"situation {number}"), synthetic=number == 5), made)
        if number != 2:
            await journal.put(word(number, "rating", number, rating=1.0))
    await journal.put(Forgotten(id="fg-3", feedback_id="fb-3", by="Ana", at=9.0))
    assert [(one.text, one.chance, one.reward) for one in await logged(journal)] == [("situation 0", 0.9, 1.0)]
    await journal.set_metadata(CHANCES, [("dc-1", 0.5)])  # two versions drew lots for it
    assert [(one.id, one.chance) for one in await logged(journal)] == [("dc-0", 0.9), ("dc-1", 0.5)]
    assert [one.id for one in await logged(journal, lambda feedback, source: feedback != "fb-0")] == ["dc-1"]


async def test_the_reference_set_is_filled_once_and_then_stands(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "SIZE", 4)
    for number in range(3):
        await journal.put(percept(number, f"situation {number % 2}"))
    await journal.put(replace(percept(9, "a rehearsal"), synthetic=True))
    first = await situations(journal)
    assert {one.text for one in first} == {"situation 0", "situation 1"}
    for number in range(10, 20):
        await journal.put(percept(number, f"situation {number}"))
    full = await situations(journal)
    assert (full[:2], len(full)) == (first, 4)
    await journal.put(percept(20, "later"))
    assert await situations(journal) == full
