"""A liar among people who teach a real memory: found out of fold, unlearnt by table and memory, and vouched for again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from runtime.doubting import Doubts
from runtime.journal import Journal
from runtime.learning.memory import Floats, Lesson, Memory
from runtime.messages import Action, Example
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, percept

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


def written(scope: str, action: Action) -> str:
    return str(action.arguments["level"])


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Journal.open(tmp_path / "j.db") as journal:
        memory = Memory()
        rows = taught()
        memory.restore((Lesson(e.id, e.scope, e.text, e.action), feature) for e, feature in rows)
        made = House(journal, memory, Doubts(journal, memory, written), [e for e, _ in rows])
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


async def test_without_a_memory_nothing_is_doubted(house: House) -> None:
    assert len(await Doubts(house.journal, None, written).look(house.examples)) == 60
