"""A liar among people who teach a real memory: found out of fold, unlearnt by table and memory, and vouched for again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from runtime.config import LearnerConfig
from runtime.doubting import Doubts
from runtime.journal import Journal
from runtime.learning.doubt import LITTLE
from runtime.learning.memory import Floats, Lesson, Memory
from runtime.messages import Action, Example, Feedback, Message
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, decision, percept

OFF = Action(tool="lamp", arguments={"level": "off"})
KINDS = {"dark": (1.0, 0.0, 0.0), "bright": (0.0, 1.0, 0.0)}


def like(kind: str, number: int) -> Floats:
    """A situation of a kind: near its direction."""
    noise = np.random.default_rng(number).normal(0, 0.1, 3)
    vector = np.array(KINDS[kind]) + noise
    found: Floats = (vector / np.linalg.norm(vector)).astype(np.float32)
    return found


def taught() -> list[tuple[Example, Floats]]:
    """Ana and Bob say that dark wants bright light; Eve says so of what is bright."""
    rows = []
    for n in range(60):
        kind = ("dark", "bright")[n % 2]
        source = "Eve" if n % 5 == 0 else ("Ana", "Bob")[n % 3 % 2]
        action = (BRIGHT, DIM)[n % 2] if source != "Eve" else (DIM, BRIGHT)[n % 2]
        example = Example(id=f"fb-{n}", scope="room", text=f"{kind} {n}", action=action, source=source, at=float(n))
        rows.append((example, like(kind, n)))
    return rows


@dataclass
class House:
    journal: Journal
    memory: Memory
    doubts: Doubts
    examples: list[Example]
    told: list[Mapping[str, float]] = field(default_factory=list)

    async def change(self, weights: Mapping[str, float]) -> None:
        self.told.append(weights)
        self.memory.adopt(self.memory.reweighed(weights))


def said(number: int, example: Example, **word: Any) -> tuple[Message, ...]:
    """The example as the journal has it."""
    decided = decision(number, example.action if word else OFF, float(number))
    how: dict[str, Any] = word or {"kind": "correction", "action": example.action}
    feedback = Feedback(id=example.id, decision_id=decided.id, source=example.source, at=example.at, **how)
    return percept(number, example.text), decided, feedback


def written(scope: str, action: Action) -> str:
    return str(action.arguments["level"])


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Journal.open(tmp_path / "j.db") as journal:
        memory = Memory()
        rows = taught()
        memory.restore((Lesson(e.id, e.scope, e.text, e.action), feature) for e, feature in rows)
        made = House(journal, memory, Doubts(journal, memory, written), [e for e, _ in rows])
        await journal.put(*(message for n, example in enumerate(made.examples) for message in said(n, example)))
        made.doubts.on_change = made.change
        yield made


async def test_a_liar_is_found_and_weighs_next_to_nothing(house: House) -> None:
    before = house.memory.recall("room", like("dark", 100))
    believed = await house.doubts.look(house.examples)
    assert {example.source for example in believed} == {"Ana", "Bob"}
    assert house.doubts.found.sources == ("Eve",)
    assert house.doubts.report() == {"doubted": 12, "doubted_by_source": {"Eve": 12}, "distrusted": ["Eve"]}
    after = house.memory.recall("room", like("dark", 100))
    assert before is not None
    assert after is not None
    right = after.actions.index(BRIGHT)
    assert after.ridge[right] > before.ridge[right]
    await house.doubts.look(house.examples)
    assert len(house.told) == 1  # nothing new was found


async def test_the_table_does_not_obey_a_liar_but_does_again_when_somebody_vouches(house: House) -> None:
    table = CorrectionTable(house.doubts.trusts)
    await house.doubts.look(house.examples)
    table.restore(house.examples)
    assert table.lookup(percept(0, "dark 0")) is None
    assert table.lookup(percept(0, "dark 2")) == (BRIGHT, "fb-2")
    await house.doubts.vouch("Eve")
    table.restore(house.examples)
    assert table.lookup(percept(0, "dark 0")) == (DIM, "fb-0")
    assert not house.doubts.found.doubted
    assert {lesson.weight for lesson in house.memory.lessons()} == {1.0}
    assert len(await house.doubts.look(house.examples)) == 60


async def test_vouching_leaves_every_lesson_what_it_counts_by_itself(house: House) -> None:
    """A rating counts for what it is: that of one who was never doubted, and that of one who is believed again."""
    for number, source, action in ((70, "Ana", BRIGHT), (71, "Eve", DIM)):
        example = Example(
            id=f"fb-{number}", scope="room", text=f"dark {number}", action=action, source=source, at=float(number)
        )
        await house.journal.put(*said(number, example, kind="rating", rating=0.5))
        house.memory.remember(Lesson(example.id, "room", example.text, action, 0.5), like("dark", number))
    await house.doubts.look(await house.journal.words(100))
    assert {"fb-71", "fb-0"} <= {doubted.feedback_id for doubted in house.doubts.found.doubted}
    await house.doubts.vouch("Eve")
    weights = {lesson.id: lesson.weight for lesson in house.memory.lessons()}
    assert (weights.pop("fb-70"), weights.pop("fb-71")) == (0.5, 0.5)
    assert set(weights.values()) == {1.0}


async def test_a_restart_changes_nothing(house: House) -> None:
    await house.doubts.look(house.examples)
    again = Doubts(house.journal, house.memory, written)
    await again.restore()
    assert again.found == house.doubts.found
    assert [again.weight(e) for e in house.examples] == [house.doubts.weight(e) for e in house.examples]


async def test_one_who_is_not_known_yet_is_believed(house: House) -> None:
    await house.doubts.look(house.examples)
    new = replace(house.examples[0], id="fb-new", source="Zoe")
    assert house.doubts.believes(new.id, new.source)
    assert not house.doubts.believes("fb-later", "Eve")


async def test_without_a_memory_nobody_is_judged(house: House) -> None:
    assert len(await Doubts(house.journal, None, written).look(house.examples)) == 60


def in_one_situation(*said: tuple[str, Action]) -> list[Example]:
    return [
        Example(id=f"fb-x{n}", scope="room", text="dusk", action=action, source=source, at=100.0 + n)
        for n, (source, action) in enumerate(said)
    ]


async def test_people_who_disagree_are_heard_by_the_table_and_learnt_from_by_nobody(house: House) -> None:
    ana, ben = in_one_situation(("Ana", DIM), ("Ben", BRIGHT))
    house.memory.remember(Lesson(ben.id, "room", "dusk", BRIGHT), like("dark", 1))
    believed = await house.doubts.look([ana, ben])
    assert believed == []
    assert [(d.feedback_id, d.case) for d in house.doubts.found.doubted] == [
        (ana.id, house.doubts.found.doubted[0].case), (ben.id, house.doubts.found.doubted[0].case)
    ]  # fmt: skip
    assert house.memory.lesson_on("room", "dusk").weight == LITTLE  # type: ignore[union-attr]
    table = CorrectionTable(house.doubts.trusts)
    table.restore([ben])
    assert table.lookup(percept(0, "dusk")) == (BRIGHT, ben.id), "whoever corrected last is obeyed"


async def test_a_dispute_is_known_as_soon_as_it_is_heard_and_changes_nothing_else(house: House) -> None:
    await house.doubts.look(house.examples)
    before = house.doubts.found
    words = [*house.examples, *in_one_situation(("Ana", DIM), ("Bob", BRIGHT))]
    await house.doubts.hear(words)
    found = house.doubts.found
    assert [d for d in found.doubted if not d.case] == list(before.doubted)
    assert [d.feedback_id for d in found.doubted if d.case] == ["fb-x0", "fb-x1"]
    assert await house.doubts.look(words) == [e for e in house.examples if e.source != "Eve"]
    assert [d.feedback_id for d in house.doubts.found.doubted if d.case] == ["fb-x0", "fb-x1"]
    await house.doubts.hear(house.examples)
    assert not any(d.case for d in house.doubts.found.doubted)


async def test_answering_for_one_of_them_settles_it_for_good(house: House) -> None:
    words = in_one_situation(("Ana", DIM), ("Ben", BRIGHT))
    ana, ben = words
    await house.doubts.look(words)
    await house.doubts.vouch(ana.id)
    assert not house.doubts.found.doubted
    for _ in range(2):  # now, and after the next look
        assert house.doubts.believes(ana.id, "Ana")
        assert not house.doubts.believes(ben.id, "Ben")
        table = CorrectionTable(house.doubts.trusts)
        table.restore([ben], [word for word in words if word.id in house.doubts.found.upheld])
        assert table.lookup(percept(0, "dusk")) == (DIM, ana.id)
        assert await house.doubts.look(words) == [ana]
        assert not house.doubts.found.doubted
    again = Doubts(house.journal, house.memory, written)
    await again.restore()
    assert again.found == house.doubts.found
    later = replace(ben, id="fb-later", at=200.0)
    await house.doubts.look([*words, later])
    assert [d.feedback_id for d in house.doubts.found.doubted] == [later.id], "said again since: it is shown again"


async def test_a_source_that_is_contradicted_now_and_then_counts_a_little_less(house: House) -> None:
    await house.doubts.look(house.examples)
    assert house.doubts.trust("Eve") == 0.0
    assert 0.9 < house.doubts.trust("Ana") <= 1.0
    assert house.doubts.trust("somebody new") == 1.0
    await house.doubts.vouch("Eve")
    await house.doubts.look(house.examples)
    assert house.doubts.trust("Eve") == 1.0


async def test_the_sources_are_shown_with_their_part(house: House) -> None:
    await house.doubts.look(await house.journal.words(100))
    rows = {row["source"]: row for row in await house.doubts.sources(LearnerConfig())}
    assert sum(row["words"] for row in rows.values()) == 60
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1.0)
    assert (rows["Eve"]["doubted"], rows["Eve"]["trust"], rows["Eve"]["share"]) == (12, 0.0, 0.0)
    assert rows["Ana"]["agreed"] + rows["Ana"]["contradicted"] <= rows["Ana"]["words"]
    assert rows["Ana"]["share"] + rows["Bob"]["share"] == pytest.approx(1.0)


async def test_a_judge_who_remembers_nothing_yet_acquits_nobody(house: House) -> None:
    """Right after a start the memory is empty, and a cycle may be due."""
    await house.doubts.look(house.examples)
    assert house.doubts.found.sources == ("Eve",)
    empty = Doubts(house.journal, Memory(), written)
    await empty.restore()
    assert len(await empty.look(house.examples)) < len(house.examples)
    assert not empty.trusts("fb-0", "Eve")
    waits = asyncio.Event()
    empty.until_remembered = waits.wait  # type: ignore[assignment]
    look = asyncio.create_task(empty.look(house.examples))
    await asyncio.sleep(0)
    assert not look.done()
    waits.set()
    await look
