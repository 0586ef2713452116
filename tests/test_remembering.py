"""What people say is remembered as soon as it is committed, and again after a restart."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from runtime.bus import Bus
from runtime.catalogue import Catalogue
from runtime.journal import Journal
from runtime.learning.doubt import LITTLE
from runtime.learning.memory import Memory, unpacked
from runtime.messages import Action, Feedback, Forgotten
from runtime.remembering import Remembering
from runtime.situations import Catalogues
from tests.stages import BRIGHT, DIM, LAMP, decision, percept


@dataclass
class Looker:
    """Every text has a direction of its own."""

    asked: list[str] = field(default_factory=list)

    async def look(self, texts: Sequence[str], catalogue: Catalogue) -> list[bytes]:
        self.asked.extend(texts)
        return [self.feature(text) for text in texts]

    @staticmethod
    def feature(text: str) -> bytes:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        vector = np.random.default_rng(seed).normal(size=32)
        return (vector / np.linalg.norm(vector)).astype(np.float16).tobytes()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "j.db") as opened:
        yield opened


async def say(
    journal: Journal, number: int, text: str, *, kind: str = "correction", rating: float | None = None
) -> Feedback:
    feedback = Feedback(
        id=f"fb-{number}", decision_id=f"dc-{number}", kind=kind, source="Ana", at=float(number), rating=rating,  # type: ignore[arg-type]
        action=DIM if kind == "correction" else None,
    )  # fmt: skip
    await journal.put(percept(number, text), decision(number, BRIGHT, float(number)), feedback)
    return feedback


def stage(journal: Journal, looker: Looker, memory: Memory) -> Remembering:
    return Remembering(journal, looker, Catalogues([{"room": (LAMP,)}]), memory, window=100)


def best(memory: Memory, text: str) -> Action:
    recalled = memory.recall("room", unpacked(Looker.feature(text)))
    assert recalled is not None
    return recalled.actions[int(recalled.ridge.argmax())]


async def test_a_correction_is_remembered(journal: Journal) -> None:
    memory, looker = Memory(), Looker()
    await stage(journal, looker, memory).learn(await say(journal, 1, "dark"))
    assert best(memory, "dark") == DIM


async def test_what_a_decision_saw_is_not_looked_at_again(journal: Journal) -> None:
    memory, looker = Memory(), Looker()
    remembering = stage(journal, looker, memory)
    remembering.seen("room", "dark", unpacked(Looker.feature("dark")))
    await remembering.learn(await say(journal, 1, "dark"))
    assert looker.asked == []
    assert memory.knows("room", "dark")


async def test_an_acceptance_is_a_lesson_and_a_dislike_is_none(journal: Journal) -> None:
    memory = Memory()
    remembering = stage(journal, Looker(), memory)
    await remembering.learn(await say(journal, 1, "dark", kind="acceptance"))
    await remembering.learn(await say(journal, 2, "noon", kind="rating", rating=-1.0))
    assert best(memory, "dark") == BRIGHT
    assert not memory.knows("room", "noon")


async def test_what_can_no_longer_be_done_is_no_lesson_and_hides_none(journal: Journal) -> None:
    memory = Memory()
    remembering = stage(journal, Looker(), memory)
    await remembering.learn(await say(journal, 1, "dark"))
    gone = Action(tool="candle")
    accepted = Feedback(id="fb-2", decision_id="dc-2", kind="acceptance", source="Ana", at=2.0)
    await journal.put(percept(2, "dark"), decision(2, gone, 2.0), accepted)
    await remembering.learn(accepted)
    assert [lesson.id for lesson in memory.lessons()] == ["fb-1"]
    await remembering.restore()
    assert [lesson.id for lesson in memory.lessons()] == ["fb-1"]


async def test_a_restart_remembers_the_same(journal: Journal) -> None:
    memory, again = Memory(), Memory()
    remembering = stage(journal, Looker(), memory)
    for number, text in enumerate(("dark", "noon", "dark", "night")):
        kind = "acceptance" if text == "noon" else "correction"
        await remembering.learn(await say(journal, number, text, kind=kind))
    await stage(journal, Looker(), again).restore()
    assert (
        {lesson.id for lesson in again.lessons()}
        == {lesson.id for lesson in memory.lessons()}
        == {"fb-1", "fb-2", "fb-3"}
    )
    for text in ("dark", "noon", "night", "something else"):
        ours, theirs = (m.recall("room", unpacked(Looker.feature(text))) for m in (memory, again))
        assert ours is not None
        assert theirs is not None
        places = [theirs.actions.index(action) for action in ours.actions]
        np.testing.assert_allclose(ours.ridge, theirs.ridge[places], atol=1e-4)


async def test_what_is_remembered_is_not_looked_at_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.remembering.SEEN", 1)
    memory, looker = Memory(), Looker()
    remembering = stage(journal, looker, memory)
    texts = ["dark", "noon", "night"]
    for number, text in enumerate(texts):
        await remembering.learn(await say(journal, number, text))
    await remembering.restore()
    assert looker.asked == texts
    assert {lesson.text for lesson in memory.lessons()} == set(texts)
    other = stage(journal, looker, Memory())
    await other.restore()
    assert sorted(looker.asked[3:]) == sorted(texts), "also with more situations than are kept"


async def test_it_follows_the_bus(journal: Journal) -> None:
    memory, bus = Memory(), Bus()
    remembering = stage(journal, Looker(), memory)
    heard = bus.subscribe(Feedback)
    task = asyncio.create_task(remembering.run(heard))
    await bus.publish(await say(journal, 1, "dark"))
    async with asyncio.timeout(20):
        await remembering.until_known("room", "dark")
    task.cancel()


async def test_what_is_taken_back_is_forgotten_and_the_word_before_it_found_again(journal: Journal) -> None:
    memory = Memory()
    remembering = stage(journal, Looker(), memory)
    await remembering.learn(await say(journal, 1, "dark", kind="acceptance"))
    again = Feedback(id="fb-2", decision_id="dc-1", kind="correction", source="Eve", at=2.0, action=DIM)
    await journal.put(again)
    await remembering.learn(again)
    assert best(memory, "dark") == DIM
    await journal.put(Forgotten(id="fg-2", feedback_id="fb-2", by="person", at=3.0))
    remembering.forget(["fb-2"])
    assert not memory.knows("room", "dark")
    async with asyncio.timeout(20):
        await asyncio.gather(*remembering._tasks)
    assert best(memory, "dark") == BRIGHT


async def test_the_memory_does_not_swing_to_whoever_spoke_last(journal: Journal) -> None:
    memory, doubted = Memory(), set[str]()
    remembering = Remembering(
        journal, Looker(), Catalogues([{"room": (LAMP,)}]), memory, window=100,
        weigh=lambda word: LITTLE if word.id in doubted else 1.0,
    )  # fmt: skip
    disputes: list[list[str]] = []

    async def rule() -> None:
        disputes.append([lesson.id for lesson in memory.lessons()])
        doubted.update(("fb-1", "fb-2"))

    remembering.on_dispute = rule
    await remembering.learn(await say(journal, 1, "dark", kind="acceptance"))
    ben = Feedback(id="fb-2", decision_id="dc-1", kind="correction", source="Ben", at=2.0, action=DIM)
    await journal.put(ben)
    await remembering.learn(ben)
    assert disputes == [["fb-1"]], "until it is ruled, what was learnt stands"
    assert [(lesson.id, lesson.weight) for lesson in memory.lessons()] == [("fb-2", LITTLE)]
    mind = Feedback(id="fb-3", decision_id="dc-1", kind="correction", source="Ben", at=3.0, action=BRIGHT)
    await journal.put(mind)
    await remembering.learn(mind)
    assert [(lesson.id, lesson.weight) for lesson in memory.lessons()] == [("fb-3", 1.0)], "he may change his mind"
    assert len(disputes) == 1


async def test_after_a_restart_the_word_that_is_believed_is_remembered(journal: Journal) -> None:
    await say(journal, 1, "dark", kind="acceptance")
    await journal.put(Feedback(id="fb-2", decision_id="dc-1", kind="correction", source="Ben", at=2.0, action=DIM))
    memory = Memory()
    believed = {"fb-1": 1.0, "fb-2": LITTLE}
    remembering = Remembering(
        journal, Looker(), Catalogues([{"room": (LAMP,)}]), memory, window=100, weigh=lambda e: believed[e.id]
    )
    await remembering.restore()
    assert [lesson.id for lesson in memory.lessons()] == ["fb-1"]
