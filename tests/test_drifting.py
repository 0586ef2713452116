"""When people begin to correct other things, or other things come in, the learner is told: once, and also after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime.drifting import Drifting
from runtime.journal import Journal
from runtime.messages import Cycle, Feedback
from runtime.metrics import Metrics
from tests.stages import BRIGHT, DIM, decision, percept


@dataclass
class Pupil:
    """What the learner was told."""

    told: list[str] = field(default_factory=list)

    def drifted(self, reason: str) -> None:
        self.told.append(reason)


@dataclass
class House:
    """A journal that fills, and people who speak of every fourth decision."""

    journal: Journal
    pupil: Pupil = field(default_factory=Pupil)
    metrics: Metrics = field(default_factory=Metrics)
    now: int = 0

    def __post_init__(self) -> None:
        self.stage = self.restarted()

    def restarted(self) -> Drifting:
        """It knows only what the journal knows."""
        return Drifting(self.journal, self.pupil, self.metrics, clock=lambda: float(self.now))

    async def live(self, decisions: int, *, wrong_every: int = 0, novelty: float = 0.2) -> None:
        for _ in range(decisions):
            self.now += 1
            made = replace(decision(self.now, BRIGHT, float(self.now)), novelty=novelty + (self.now * 37 % 100) / 1000)
            await self.journal.put(percept(self.now, f"situation {self.now}"), made)
            await self.stage.hear(made)
            wrong = bool(wrong_every) and self.now % wrong_every == 0
            if not wrong and self.now % 4:
                continue
            said = Feedback(
                id=f"fb-{self.now}", decision_id=made.id, kind="correction" if wrong else "acceptance", source="Ana",
                at=float(self.now), action=DIM if wrong else None,
            )  # fmt: skip
            await self.journal.put(said)
            await self.stage.hear(said)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Journal.open(tmp_path / "j.db") as journal:
        yield House(journal)


async def test_other_habits_are_told_once_with_their_figures(house: House) -> None:
    await house.live(120, wrong_every=12)
    assert house.pupil.told == []
    await house.live(60, wrong_every=2)
    (reason,) = house.pupil.told
    assert reason.startswith("what people say changed: ")
    assert " corrected, before 8 %" in reason
    assert b'corrigible_drifts_total{of="corrections"} 1.0' in house.metrics.text()
    await house.live(100, wrong_every=2)
    assert len(house.pupil.told) == 1, "as wrong as before is no other change"


async def test_another_kind_of_situation_is_told(house: House) -> None:
    await house.live(120)
    await house.live(30, novelty=0.7)
    (reason,) = house.pupil.told
    assert "situations were unfamiliar" in reason


async def test_a_restart_does_not_forget_until_a_cycle_has_learnt_from_it(house: House) -> None:
    await house.live(120, wrong_every=12)
    await house.live(60, wrong_every=2)
    await house.restarted().restore()
    assert house.pupil.told[0] == house.pupil.told[1]
    await house.journal.put(Cycle(id="cy-1", state="failed", started_at=float(house.now + 1)))
    await house.restarted().restore()
    assert len(house.pupil.told) == 3, "a failed cycle has learnt nothing"
    await house.journal.put(Cycle(id="cy-2", state="rejected", started_at=float(house.now + 2)))
    house.stage = house.restarted()
    await house.stage.restore()
    await house.live(20, wrong_every=2)
    assert len(house.pupil.told) == 3


async def test_what_was_unfamiliar_before_the_restart_is_still_known_to_it(house: House) -> None:
    await house.live(120)
    house.stage = house.restarted()
    await house.stage.restore()
    await house.live(30, novelty=0.7)
    assert len(house.pupil.told) == 1


async def test_silence_after_the_last_word_says_nothing(house: House) -> None:
    """What nobody may have seen yet counts neither as right nor as wrong."""
    await house.live(8, wrong_every=2)
    for number in range(100, 110):
        await house.journal.put(percept(number, f"situation {number}"), decision(number, BRIGHT, float(number)))
    assert len(await house.journal.corrected(since=0.0, limit=100)) == 8
