"""Memory and weights side by side: lessons that the weights have learnt lose weight, new ones do not, whatever serves; and
the memory can be switched off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import app, config
from runtime.bus import Bus
from runtime.catalogue import Catalogue
from runtime.config import PolicyConfig
from runtime.decision import Decider, Serving
from runtime.errors import Unavailable
from runtime.journal import Journal
from runtime.learning.memory import Memory, unpacked
from runtime.learning.registry import Manifest
from runtime.learning.trust import Trust
from runtime.messages import Decision
from runtime.metrics import Metrics
from runtime.policy.protocol import Row
from runtime.remembering import Remembering
from runtime.situations import Catalogues
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, LAMP, TableModel, percept
from tests.test_remembering import Looker, say

PART = 0.3


@dataclass
class Featured(TableModel):
    """A model that also says what the situation is like."""

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Row:
        row = await super().score_one(text, catalogue, adapter, feature=feature)
        return Row(
            actions=row.actions,
            log_probs=row.log_probs,
            chosen=row.chosen,
            log_p=row.log_p,
            feature=Looker.feature(text),
        )


@dataclass
class House:
    """What people taught, and a memory that consolidates."""

    journal: Journal
    memory: Memory
    remembering: Remembering

    def share(self, text: str) -> float:
        """Of what was taught near a situation, how much was dim light."""
        recalled = self.memory.recall("room", unpacked(Looker.feature(text)))
        assert recalled is not None
        return float(recalled.ridge[recalled.actions.index(DIM)])

    def decider(self, adapter: str) -> Decider:
        serving = Serving(adapter)
        serving.trust = Trust(model=0.5)
        return Decider(
            self.journal, Bus(), Featured(answer=BRIGHT), Catalogues([{"room": (LAMP,)}]), CorrectionTable(), serving,
            PolicyConfig(), Metrics(), memory=self.memory, clock=lambda: 5.0,
        )  # fmt: skip


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Journal.open(tmp_path / "journal.db") as journal:
        memory = Memory(PART)
        yield House(
            journal, memory, Remembering(journal, Looker(), Catalogues([{"room": (LAMP,)}]), memory, window=100)
        )


def version(id: str, *learnt: str, lineage: tuple[str, ...] = ()) -> dict[str, Manifest]:
    made = Manifest(
        id=id, parent="base", revision="r1", files={}, lineage=lineage or learnt, learnt=learnt, parameters={}, scores={},
        fingerprint=(), verdict="", created=0.0,
    )  # fmt: skip
    return {id: made}


async def test_what_the_serving_version_has_learnt_counts_less_until_another_serves(house: House) -> None:
    await house.remembering.learn(await say(house.journal, 1, "dark"))
    await house.remembering.learn(await say(house.journal, 2, "noon"))
    whole = house.share("dark"), house.share("noon")
    await house.remembering.beside(version("v1", "fb-1"))
    assert house.share("dark") < 0.8 * whole[0]
    assert house.share("noon") == pytest.approx(whole[1], abs=0.1)
    assert house.memory.knows("room", "dark"), "it is still there to explain with"
    await house.remembering.beside({})  # rolled back to the base model
    assert (house.share("dark"), house.share("noon")) == pytest.approx(whole, abs=1e-4)


async def test_while_two_versions_share_the_decisions_only_what_both_have_learnt_counts_less(house: House) -> None:
    await house.remembering.learn(await say(house.journal, 1, "dark"))
    whole = house.share("dark")
    await house.remembering.beside({**version("v1", "fb-1"), **version("v2", "fb-9")})
    assert house.share("dark") == pytest.approx(whole, abs=1e-4)
    await house.remembering.beside({**version("v1", "fb-1"), **version("v2", "fb-1")})
    assert house.share("dark") < 0.8 * whole


async def test_a_restart_gives_the_same_memory(house: House) -> None:
    for number, text in enumerate(("dark", "noon", "night"), start=1):
        await house.remembering.learn(await say(house.journal, number, text))
    serves = version("v1", "fb-1", "fb-2")
    await house.remembering.beside(serves)
    again = Memory(PART)
    stage = Remembering(house.journal, Looker(), Catalogues([{"room": (LAMP,)}]), again, window=100)
    await stage.beside(serves)  # what serves is known before the lessons are read
    await stage.restore()
    for text in ("dark", "noon", "night"):
        recalled = again.recall("room", unpacked(Looker.feature(text)))
        assert recalled is not None
        assert float(recalled.ridge[0]) == pytest.approx(house.share(text), abs=1e-4)


async def test_a_new_word_on_a_situation_that_was_learnt_counts_in_full(house: House) -> None:
    await house.remembering.learn(await say(house.journal, 1, "dark"))
    whole = house.share("dark")
    await house.remembering.beside(version("v1", "fb-1"))
    await house.remembering.learn(await say(house.journal, 2, "dark"))
    assert house.share("dark") == pytest.approx(whole, abs=1e-4)


async def test_what_was_corrected_after_the_release_is_not_voted_down_by_weights_that_never_heard_of_it(
    house: House,
) -> None:
    for number in range(40):  # enough lessons for the memory to have its weight
        await house.remembering.learn(await say(house.journal, number, f"noon {number}", kind="acceptance"))
    bright = tuple(f"fb-{number}" for number in range(40))
    await house.remembering.learn(await say(house.journal, 50, "dusk"))  # dim

    async def decided(taught: tuple[str, ...]) -> Decision:
        await house.remembering.beside(version("v1", lineage=taught))
        return await house.decider("v1").decide(percept(60, "dusk"))

    known, new = await decided((*bright, "fb-50")), await decided(bright)
    chance = {
        name: next(c.log_both for c in made.candidates if c.action == DIM)
        for name, made in (("known", known), ("new", new))
    }
    assert (new.actions[0], new.by) == (DIM, "memory")
    assert chance["new"] is not None
    assert chance["known"] is not None
    assert chance["new"] > chance["known"]


async def test_the_memory_can_be_switched_off_and_goes_on_remembering(house: House) -> None:
    decider = house.decider("base")
    decider.memory_on = False
    for number in range(40):
        await house.remembering.learn(await say(house.journal, number, f"noon {number}", kind="acceptance"))
    await house.remembering.learn(await say(house.journal, 50, "dusk"))
    off = await decider.decide(percept(60, "dusk"))
    assert (off.actions[0], off.by) == (BRIGHT, "model")
    decider.memory_on = True
    on = await decider.decide(percept(60, "dusk"))
    assert (on.actions[0], on.by) == (DIM, "memory")


async def test_the_control_switches_it(tmp_path: Path) -> None:
    async with app.offline(config.load(None, agent={"data": tmp_path / "on"})) as control:
        assert (await control.switching.set_memory(False), (await control.looking.status())["memory"]) == (
            {"memory": False},
            False,
        )
        assert (await control.switching.set_memory(True), (await control.looking.status())["memory"]) == (
            {"memory": True},
            True,
        )
    async with app.offline(config.load(None, agent={"data": tmp_path / "off"}, policy={"memory": False})) as control:
        with pytest.raises(Unavailable, match=r"\[policy\] memory is false"):
            await control.switching.set_memory(True)
