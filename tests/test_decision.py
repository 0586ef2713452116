"""Decision: the table first, then the model, then the fallback; exploration stays where it was declared."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.bus import Bus
from runtime.catalogue import DO_NOTHING, Catalogue
from runtime.config import PolicyConfig
from runtime.decision import STALE, Decider, Serving
from runtime.journal import Journal
from runtime.learning.trust import BASE, Knowing
from runtime.messages import ASK, NOTHING, Action, Decision, Feedback, Percept
from runtime.metrics import Metrics
from runtime.policy.protocol import Row
from runtime.situations import Catalogues
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, LAMP, TableModel, percept


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "j.db") as opened:
        yield opened


@dataclass
class Gate(TableModel):
    """Answers the text `slow` (every text if it is empty) only once it is opened."""

    slow: str = ""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Row:
        self.entered.set()
        if not self.slow or text == self.slow:
            await self.open.wait()
        return await super().score_one(text, catalogue, adapter, feature=feature)


def decider(
    journal: Journal, model: TableModel, corrections: CorrectionTable | None = None, **settings: Any
) -> Decider:
    return Decider(
        journal, Bus(), model, Catalogues([{"room": (LAMP,)}]),
        corrections or CorrectionTable(), Serving("base"), PolicyConfig(**settings), Metrics(), clock=lambda: 5.0,
    )  # fmt: skip


def corrected(text: str = "dark") -> CorrectionTable:
    table, said = CorrectionTable(), percept(0, text)
    wrong = Decision(
        id="dc-0", percept_id="pc-0", scope="room", actions=(BRIGHT,), by="model", adapter="base", p_model=0.7, p_behaviour=1.0, at=1.0
    )  # fmt: skip
    table.learn(
        said, wrong, Feedback(id="fb-0", decision_id="dc-0", kind="correction", source="Ana", at=2.0, action=DIM)
    )
    return table


async def test_an_exact_repeat_is_answered_by_the_table(journal: Journal) -> None:
    model = TableModel()
    made = await decider(journal, model, corrected()).decide(percept(1))
    assert (made.by, made.actions, made.table_feedback, made.p_behaviour) == ("table", (DIM,), "fb-0", 1.0)
    assert model.asked == []


async def test_what_can_no_longer_be_done_is_not_answered_by_the_table(journal: Journal) -> None:
    stage = decider(journal, TableModel(), corrected())
    level = {"enum": ["off", "bright"]}
    stage._catalogues = Catalogues([{"room": (replace(LAMP, arguments={"level": level}),)}])
    made = await stage.decide(percept(1))
    assert (made.by, made.actions) == ("model", (BRIGHT,))


async def test_the_table_can_be_switched_off(journal: Journal) -> None:
    made = await decider(journal, TableModel(), corrected(), table=False).decide(percept(1))
    assert (made.by, made.actions) == ("model", (BRIGHT,))


async def test_a_rehearsal_never_asks_the_table(journal: Journal) -> None:
    rehearsal = Percept(id="pc-9", scope="room", text="dark", at=1.0, synthetic=True)
    made = await decider(journal, TableModel(), corrected()).decide(rehearsal)
    assert (made.by, made.note) == ("model", "rehearsal")


async def test_the_model_says_how_sure_it_is_of_every_candidate(journal: Journal) -> None:
    made = await decider(journal, TableModel()).decide(percept(1))
    assert made.p_model == pytest.approx(0.7)
    assert {c.action.tool for c in made.candidates} == {"nothing", "lamp"}
    assert all(c.log_model is not None for c in made.candidates)


async def test_without_a_policy_it_does_nothing_and_says_why(journal: Journal) -> None:
    made = await decider(journal, TableModel(broken=True)).decide(percept(1))
    assert (made.by, made.actions, made.note) == ("fallback", (NOTHING,), "the worker is gone")


async def test_exploration_stays_within_the_declared_tools(journal: Journal) -> None:
    exploring = decider(journal, TableModel(), explore=0.5, explore_among=["lamp"])
    made = [await exploring.decide(percept(number)) for number in range(60)]
    chances = {str(d.actions[0].arguments["level"]): d.p_behaviour for d in made}
    assert set(chances) == {"off", "dim", "bright"}
    assert sum(chances.values()) == pytest.approx(1.0)


async def test_order_is_kept_within_a_scope(journal: Journal) -> None:
    model = TableModel()
    stage = decider(journal, model)
    percepts, decisions = stage._bus.subscribe(Percept), stage._bus.subscribe(Decision)
    running = asyncio.create_task(stage.run(percepts))
    texts = [f"situation {number}" for number in range(20)]
    for number, text in enumerate(texts):
        await journal.put(percept(number, text))
        await stage._bus.publish(percept(number, text))
    made = [await decisions.get() for _ in texts]
    running.cancel()
    assert [text for text, _ in model.asked] == texts
    assert [d.percept_id for d in made] == [f"pc-{number}" for number in range(20)]


async def test_a_policy_that_takes_too_long_is_not_waited_for(journal: Journal) -> None:
    made = await decider(journal, Gate(), timeout=0.01).decide(percept(1))
    assert (made.by, made.actions, made.note) == ("fallback", (NOTHING,), "the policy took too long")


async def test_whatever_the_policy_raises_the_loop_goes_on(journal: Journal) -> None:
    class Odd(TableModel):
        async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Row:
            raise KeyError("logits")

    made = await decider(journal, Odd()).decide(percept(1))
    assert (made.by, made.actions, made.note) == ("fallback", (NOTHING,), "KeyError: 'logits'")


async def test_a_situation_that_is_long_past_is_not_acted_on(journal: Journal) -> None:
    model = TableModel()
    made = await decider(journal, model).decide(replace(percept(1), at=5.0 - STALE - 1))
    assert (made.by, made.actions, made.note) == ("fallback", (NOTHING,), "601 s old: too late")
    assert model.asked == []


async def test_a_situation_that_became_past_while_nothing_served_is_not_acted_on(journal: Journal) -> None:
    model = TableModel()
    stage = decider(journal, model)
    stage.awake.clear()
    made = await stage.decide(replace(percept(1), at=5.0 - STALE + 0.01))
    assert (made.by, made.actions) == ("fallback", (NOTHING,))
    assert model.asked == []


async def test_the_adapter_is_read_once_for_a_decision(journal: Journal) -> None:
    gate = Gate()
    stage = decider(journal, gate)
    deciding = asyncio.create_task(stage.decide(percept(1)))
    await gate.entered.wait()
    stage._serving.adapter = "released meanwhile"
    gate.open.set()
    assert (await deciding).adapter == "base"
    assert gate.asked == [("dark", "base")]
    assert (await stage.decide(percept(2))).adapter == "released meanwhile"


async def test_a_slow_scope_holds_up_no_other(journal: Journal) -> None:
    gate = Gate(slow="dark")
    stage = decider(journal, gate)
    stage._catalogues = Catalogues([{"room": (LAMP,), "hall": (replace(LAMP, actuator=""),)}])
    decisions = stage._bus.subscribe(Decision)
    percepts = stage._bus.subscribe(Percept)
    running = asyncio.create_task(stage.run(percepts))
    for waiting in (percept(1, "dark", "room"), percept(2, "light", "room"), percept(3, "light", "hall")):
        await journal.put(waiting)
        await stage._bus.publish(waiting)
    assert (await decisions.get()).percept_id == "pc-3"
    gate.open.set()
    assert [(await decisions.get()).percept_id for _ in range(2)] == ["pc-1", "pc-2"]
    running.cancel()


class Dice:
    """Always explores, and takes the action of this number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def random(self) -> float:
        return 0.0

    def choice(self, among: list[Action]) -> Action:
        return among[self.number % len(among)]


@settings(max_examples=100, deadline=None)
@given(
    rate=st.floats(0.001, 0.5),
    among=st.lists(st.sampled_from(["nothing", "lamp", "door"]), unique=True),
    answer=st.sampled_from([NOTHING, DIM, BRIGHT]),
)
def test_the_chances_of_exploration_add_up(rate: float, among: list[str], answer: Action) -> None:
    stage = decider(cast(Journal, None), TableModel(), explore=rate, explore_among=among)
    row = asyncio.run(TableModel(answer).score_one("dark", Catalogue(tools=(DO_NOTHING, LAMP)), "base"))
    chances: dict[str, float] = {}
    for number in range(len(row.actions)):
        stage._random = cast(random.Random, Dice(number))
        taken, chance = stage._explore(row.actions, stage.believe("room", "dark", row, BASE, "base"))
        assert taken == answer or taken.tool in among
        chances[repr(taken)] = chance
    assert sum(chances.values()) == pytest.approx(1.0)


async def test_unsure_after_training_it_asks_instead_of_guessing(journal: Journal) -> None:
    stage = decider(journal, TableModel(), ask_below=0.8, ask_share=1.0)
    spoken = replace(percept(1), kind="speech")
    assert (await stage.decide(spoken)).actions == (BRIGHT,), "nothing was trained yet"
    stage._serving.trust = replace(BASE, knowing=Knowing(missed_alone=(0.3,) * 20))
    asked = await stage.decide(spoken)
    assert (asked.actions, asked.by, asked.p_behaviour) == ((ASK,), "doubt", 1.0)
    assert asked.chance == asked.p_model == pytest.approx(0.7)
    assert asked.plausible == (BRIGHT,)
    assert asked.choices[0] == BRIGHT
    assert len(asked.choices) == 3
    assert (await stage.decide(replace(spoken, synthetic=True))).actions == (BRIGHT,)
    assert (await stage.decide(percept(2))).actions == (BRIGHT,), "a sensor has nobody to answer"
