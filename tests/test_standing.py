"""Whatever people say in whatever order, the memory holds what a restart would give it: the same lessons at the same weights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runtime.bus import Bus
from runtime.doubting import Doubts
from runtime.journal import Journal
from runtime.learning.doubt import LITTLE, Findings
from runtime.learning.memory import Memory
from runtime.messages import Action, Feedback, Forgotten
from runtime.remembering import Remembering
from runtime.situations import Catalogues
from tests.stages import BRIGHT, DIM, LAMP, decision, percept
from tests.test_remembering import Looker

LEVELS = {level: Action(tool="lamp", arguments={"level": level}) for level in ("off", "dim", "bright")}
Held = dict[str, float]


def rooms() -> Catalogues:
    return Catalogues([{"room": (LAMP,)}])


@dataclass
class House:
    """The parts, wired as the daemon wires them. Every decision is for bright light."""

    journal: Journal
    memory: Memory = field(default_factory=Memory)
    number: int = 0

    def __post_init__(self) -> None:
        self.doubts = Doubts(self.journal, self.memory, lambda scope, action: rooms().of(scope).render(action))
        self.remembering = Remembering(
            self.journal, Looker(), rooms(), self.memory, window=100, weigh=self.doubts.weight
        )
        self.doubts.on_change = self.believe
        self.remembering.on_dispute = self.rule

    async def believe(self, weights: Mapping[str, float]) -> None:
        await self.remembering.reweigh(weights)

    async def rule(self) -> None:
        await self.doubts.hear(await self.journal.words(100))

    async def step(self, said: str) -> None:
        """`Ana dim`, `Ana dim in the dusk`, `Eve off on 1` (the decision that the first word was on), `Ana accepts on 1`,
        `Ana rates -1 on 1`, `look`, `vouch Ana`, `vouch 2` (the second word), `forget 2`."""
        who, _, what = said.partition(" ")
        if said == "look":
            await self.doubts.look(await self.journal.words(100))
        elif who == "vouch":
            await self.doubts.vouch(f"fb-{what}" if what.isdigit() else what)
        elif who == "forget":
            await self.journal.put(Forgotten(id=f"fg-{what}", feedback_id=f"fb-{what}", by="person", at=99.0))
            self.remembering.forget([f"fb-{what}"])
        else:
            await self.remembering.learn(await self.said(who, what))
        while self.remembering._tasks:
            await asyncio.gather(*self.remembering._tasks)

    async def said(self, who: str, what: str) -> Feedback:
        self.number += 1
        what, _, on = what.partition(" on ")
        what, _, where = what.partition(" in the ")
        at = int(on or self.number)
        kind, _, stars = what.partition(" ")
        feedback = Feedback(
            id=f"fb-{self.number}", decision_id=f"dc-{at}", source=who, at=float(self.number),
            kind={"accepts": "acceptance", "rates": "rating"}.get(kind, "correction"),  # type: ignore[arg-type]
            action=LEVELS.get(kind), rating=float(stars) if stars else None,
        )  # fmt: skip
        if not on:
            await self.journal.put(percept(at, where or "dark"), decision(at, BRIGHT, float(at)))
        await self.journal.put(feedback)
        return feedback

    def held(self) -> Held:
        return {lesson.id: lesson.weight for lesson in self.memory.lessons()}

    async def after_a_restart(self) -> Held:
        other = House(self.journal)
        await other.doubts.restore()
        await other.remembering.restore()
        return other.held()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Journal.open(tmp_path / "j.db") as journal:
        made = House(journal)
        running = asyncio.create_task(made.remembering.run(Bus().subscribe(Feedback)))
        await asyncio.sleep(0)
        yield made
        running.cancel()


@pytest.mark.parametrize(
    "words",
    [
        "Ana dim; Ana off; Ana dim in the dusk; Ben accepts in the dusk",
        "Ana dim; Eve off on 1; Eve bright; Eve dim; Ana off",
        "Eve off; Eve dim; Ana off; Eve off",
        "Ana dim; Eve off on 1; look; Eve bright; look",
        "Ana dim; Ana dim; Ana dim; Ben off; Ben off; look; Ben dim; look",
        "Ana dim; Ben off; Cem off; look; Ana off; look",
        "Ana dim; Ben off; Ana dim; look; Ben off; look",
        "Ana dim; Ben off; vouch 1; look; Ben off; vouch Ben; look",
        "Eve off; Ana rates 0.5 in the dusk; vouch Eve; look",
        "Ana dim; Eve off on 1; Zoe off; look; vouch 2; Ana dim",
        "Ana accepts; Ana rates -1 on 1; Ben accepts on 1; forget 2; forget 1",
        "Ana dim; Ana off; Ana rates 0.5 on 1; Ana rates -1 on 2",
        "Ana dim; page off; Ben bright; look; mqtt dim; Ben off on 2; look",
        "Ana dim; Ben off; forget 2; Ana dim; Ben off; forget 1; look",
        "Ana dim in the dusk; Ben off in the DUSK!; Ana rates 0.3 in the dusk; look",
    ],
)
async def test_the_memory_is_what_a_restart_would_make_it(house: House, words: str) -> None:
    await house.doubts._note(Findings(sources=("Eve",)))  # she has been found out before
    for said in words.split("; "):
        await house.step(said)
        assert house.held() == await house.after_a_restart(), said


@pytest.mark.parametrize("late", ["Eve off on 1", "Ben rates -1 on 1", "Ana off on 1", "Ana rates -1 on 1"])
async def test_two_words_that_are_committed_together_are_both_heard(house: House, late: str) -> None:
    await house.doubts._note(Findings(sources=("Eve",)))
    who, _, what = late.partition(" ")
    both = [await house.said("Ana", "accepts"), await house.said(who, what)]
    for feedback in both:
        await house.remembering.learn(feedback)
    assert house.held() == await house.after_a_restart()


async def test_a_word_that_was_said_earlier_does_not_replace_a_later_one(house: House) -> None:
    await house.step("Ana dim")
    late = Feedback(id="fb-2", decision_id="dc-2", kind="correction", source="Ana", at=0.5, action=LEVELS["off"])
    await house.journal.put(percept(2), decision(2, BRIGHT, 0.4), late)
    await house.remembering.learn(late)
    assert house.held() == await house.after_a_restart() == {"fb-1": 1.0}


async def test_one_whom_nobody_believes_does_not_throw_out_an_honest_lesson(house: House) -> None:
    await house.doubts._note(Findings(sources=("Eve",)))
    await house.step("Ana dim")
    await house.step("Eve off on 1")
    assert house.held() == {"fb-1": 1.0}
    await house.step("Eve off in the dusk")
    assert house.held() == {"fb-1": 1.0, "fb-3": LITTLE}


async def test_the_majority_stays_remembered(house: House) -> None:
    for said in ("Ana dim", "Ana dim", "Ana dim", "Ben off"):
        await house.step(said)
    assert [one.source for one in house.doubts.found.doubted] == ["Ben"]
    assert house.held() == {"fb-3": 1.0}
    lesson = house.memory.lesson_on("room", "dark")
    assert lesson is not None
    assert lesson.action == DIM
