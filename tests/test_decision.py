"""Decision: the table first, then the model, then the fallback; exploration stays where it was declared."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runtime.bus import Bus
from runtime.config import PolicyConfig
from runtime.decision import Decider, Serving
from runtime.journal import Journal
from runtime.messages import NOTHING, Decision, Feedback, Percept
from runtime.metrics import Metrics
from runtime.situations import Catalogues
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, LAMP, TableModel, percept


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "j.db") as opened:
        yield opened


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
