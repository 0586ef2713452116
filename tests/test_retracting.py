"""Words that are changed or taken back, with a real journal, table and memory: all of them know at once, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import app, config
from runtime.bus import Bus
from runtime.errors import BadInput, NotFound
from runtime.ingest import Ingest
from runtime.journal import Journal
from runtime.learning.memory import Memory
from runtime.learning.registry import Registry
from runtime.messages import Action, Feedback, Message, Release
from runtime.metrics import Metrics
from runtime.remembering import Remembering
from runtime.retracting import Retracting
from runtime.situations import Catalogues
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, LAMP, decision, percept
from tests.test_proving import NEW, OLD, version
from tests.test_remembering import Looker, best

OFF = Action(tool="lamp", arguments={"level": "off"})


@dataclass
class Weights:
    """What the unlearning answers; the real one has its own tests."""

    told: int = 0

    async def unlearn(self) -> bool:
        self.told += 1
        return True

    async def proof(self) -> Message | None:
        return None


@dataclass
class House:
    journal: Journal
    table: CorrectionTable
    memory: Memory
    remembering: Remembering
    weights: Weights
    retracting: Retracting

    async def settled(self) -> None:
        await asyncio.gather(*self.remembering._tasks)

    def answers(self) -> tuple[Action | None, Action]:
        found = self.table.lookup(percept(1))
        return found[0] if found else None, best(self.memory, "dark")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Journal.open(tmp_path / "j.db") as journal:
        table, memory, weights = CorrectionTable(), Memory(), Weights()
        catalogues = Catalogues([{"room": (LAMP,)}])
        remembering = Remembering(journal, Looker(), catalogues, memory, window=9)
        ingest = Ingest(journal, Bus(), table, catalogues.of, Metrics())

        async def restore_taught() -> None:
            table.restore(await journal.corrections())

        await journal.put(percept(1), decision(1, BRIGHT, 1.0))
        said = Feedback(id="fb-1", decision_id="dc-1", kind="correction", source="Ana", at=2.0, action=DIM)
        await ingest.emit(said)
        await remembering.learn(said)
        retracting = Retracting(journal, ingest, remembering, weights, restore_taught, clock=lambda: 5.0)  # type: ignore[arg-type]
        yield House(journal, table, memory, remembering, weights, retracting)


async def test_a_changed_word_is_obeyed_remembered_and_learnt_instead_of_the_old_one(house: House) -> None:
    assert house.answers() == (DIM, DIM)
    changed = await house.retracting.edit("fb-1", action="lamp off")
    await house.settled()
    assert house.answers() == (OFF, OFF)
    (word,) = await house.journal.words(9)
    assert (word.id, word.source, word.action, word.at) == (changed["id"], "Ana", OFF, 5.0)
    assert await house.journal.forgotten() == {"fb-1"}
    assert house.weights.told == 1


async def test_a_correction_that_was_a_mistake_becomes_an_acceptance(house: House) -> None:
    await house.retracting.edit("fb-1", accept=True)
    await house.settled()
    assert house.answers() == (None, BRIGHT)


async def test_a_change_that_cannot_be_read_changes_nothing(house: House) -> None:
    with pytest.raises(BadInput, match="lamp"):
        await house.retracting.edit("fb-1", action="lamp purple")
    with pytest.raises(BadInput, match="say what is right"):
        await house.retracting.edit("fb-1")
    assert house.answers() == (DIM, DIM)
    assert await house.journal.forgotten() == frozenset()


async def test_a_word_that_was_taken_back_cannot_be_changed(house: House) -> None:
    assert (await house.retracting.forget("fb-1"))["feedback"] == ["fb-1"]
    for unknown in ("fb-1", "fb-9"):
        with pytest.raises(NotFound, match="still stands"):
            await house.retracting.edit(unknown, action="lamp off")


async def test_one_word_is_taken_back_by_its_id(house: House) -> None:
    later = Feedback(id="fb-2", decision_id="dc-1", kind="correction", source="Ana", at=3.0, action=OFF)
    await house.journal.put(later)
    await house.remembering.learn(later)
    await house.retracting.forget("fb-2")
    await house.settled()
    assert house.answers() == (DIM, DIM), "the word before it stands again"


async def test_with_the_daemon_down_what_serves_stays_until_it_is_made_anew(tmp_path: Path) -> None:
    """It is taken back at once; the daemon makes the weights anew at its next start."""
    settings = config.load(None, agent={"data": tmp_path})
    async with Journal.open(tmp_path / "journal.db") as journal:
        said = Feedback(id="fb-1", decision_id="dc-1", kind="correction", source="Ana", at=2.0, action=DIM)
        serving = Release(id="re-1", adapter=OLD, previous="base", why="gate", at=3.0)
        await journal.put(percept(1), decision(1, BRIGHT, 1.0), said, serving)
    store = Registry(tmp_path / "adapters")
    version(store, OLD, "fb-1")
    version(store, NEW, "fb-1")
    async with app.offline(settings) as control:
        answer = await control.saying.forget("fb-1")
        assert (answer["forgotten"], answer["rebuilding"], answer["proof"]) == (1, True, None)
        assert {manifest.id for manifest in store.list()} >= {OLD}
    async with Journal.open(tmp_path / "journal.db") as journal:
        await journal.put(Release(id="re-2", adapter="base", previous=OLD, why="rollback", at=4.0))
    async with app.offline(settings) as control:
        await control.saying.feedback("dc-1", "correction", action="nothing", source="Ana")
        (word,) = [w for w in await control.saying._journal.words(9)]
        answer = await control.saying.forget(word.id)
        assert (answer["rebuilding"], answer["proof"]["holds"], answer["proof"]["versions"]) == (False, True, 0)
