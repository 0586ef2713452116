"""A question instead of a guess: only where it is unsure, only after it has learnt, and never more than people bear."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime import app as application
from runtime import config
from runtime.asking import WINDOW, Asking
from runtime.catalogue import Tool
from runtime.config import PolicyConfig
from runtime.learning.trust import BASE, Belief, Knowing
from runtime.messages import ASK, NOTHING, Action, Command, Outcome, Percept
from runtime.roles import Actuator
from tests.stages import percept

LEARNT = Knowing(missed=(0.1,) * 20)
SPOKEN = replace(percept(1), kind="speech")


def belief(p: float, novelty: float) -> Belief:
    logs = (math.log(p), *[math.log((1 - p) / 3)] * 3)
    return Belief(tuple(Action(tool=name) for name in "abcd"), logs, logs, logs, novelty)


SURE, UNSURE = belief(0.98, 0.1), belief(0.4, 0.9)


def asking(**settings: object) -> Asking:
    return Asking(PolicyConfig(**{"ask_share": 1.0, **settings}))


def test_it_asks_where_it_is_unsure_and_offers_the_likeliest() -> None:
    doubt = asking().doubt(SPOKEN, UNSURE, LEARNT)
    assert doubt.instead == ASK
    assert [choice.tool for choice in doubt.choices] == ["a", "b", "c"]
    assert doubt.chance < 0.5
    sure = asking().doubt(SPOKEN, SURE, LEARNT)
    assert (sure.instead, sure.choices) == (None, ())
    assert sure.chance > 0.5


@pytest.mark.parametrize(
    ("settings", "heard", "known"),
    [
        ({}, SPOKEN, Knowing()),  # nothing was held out: no weights were trained, or on too little
        ({}, percept(1), LEARNT),  # a sensor, and nobody spoke
        ({"ask": "never"}, SPOKEN, LEARNT),
        ({"ask": "always"}, replace(percept(1), synthetic=True), LEARNT),
        ({"ask_share": 0.0}, SPOKEN, LEARNT),
    ],
)
def test_it_does_not_ask(settings: dict[str, object], heard: Percept, known: Knowing) -> None:
    assert asking(**settings).doubt(heard, UNSURE, known).instead is None


def test_a_sensor_asks_if_that_is_wanted() -> None:
    assert asking(ask="always").doubt(percept(1), UNSURE, LEARNT).instead == ASK


def test_too_many_plausible_actions_are_asked_about() -> None:
    names = tuple(Action(tool=name) for name in "abcdefgh")
    logs = (math.log(0.93), *[math.log(0.01)] * 7)
    wide = Belief(names, logs, logs, logs, 0.1)
    missed = Knowing(missed=(0.995,) * 20)
    doubt = asking().doubt(SPOKEN, wide, missed)
    assert doubt.chance > 0.5
    assert doubt.instead == ASK
    assert len(doubt.choices) == 5


def test_beyond_the_budget_it_does_what_it_believes_or_nothing() -> None:
    for setting, wanted in (("act", None), ("nothing", NOTHING)):
        one = asking(ask_share=0.1, unsure=setting)
        assert [one.doubt(SPOKEN, UNSURE, LEARNT).instead for _ in range(9)] == [wanted] * 9
        assert one.doubt(SPOKEN, UNSURE, LEARNT).instead == ASK


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=3 * WINDOW), st.floats(0, 1))
def test_never_more_questions_than_the_share(doubts: list[bool], share: float) -> None:
    one = asking(ask_share=share)
    asked = [one.doubt(SPOKEN, UNSURE if doubt else SURE, LEARNT).instead == ASK for doubt in doubts]
    for end in range(1, len(asked) + 1):
        window = asked[max(0, end - WINDOW) : end]
        assert sum(window) <= share * len(window) or not asked[end - 1]


@dataclass
class Desk(Actuator):
    """Two tools that need no device."""

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return {"desk": (Tool(name="card"), Tool(name="login"), Tool(name="transfer"))}

    async def act(self, command: Command) -> Outcome:
        raise AssertionError("a question commands nothing")


async def test_a_question_is_answered_once_and_never_put_again(tmp_path: Path) -> None:
    """The whole loop: asked, answered by one of the choices, then known by table and memory."""
    read = config.load(
        None, agent={"data": tmp_path}, broker={"mode": "none"}, policy={"ask_below": 1.0, "ask_share": 1.0}
    )
    desk, said = Desk(), "where is the thing I ordered?"
    desk.name = "desk"
    async with application.opened(read, extra=[desk]) as app:
        await app.policy.wait_ready()
        await app.restore()
        async with asyncio.TaskGroup() as core:
            await app.stages(core)
            first = await app.control.saying.say(said, scope="desk")
            assert (first["by"], first["question"]) == ("model", []), "untrained weights do not ask"
            app.serving.trust = replace(BASE, knowing=Knowing(missed=(0.3,) * 20, missed_alone=(0.3,) * 20))
            asked = await app.control.saying.say(said + " please", scope="desk")
            assert (asked["by"], asked["action"], len(asked["question"])) == ("doubt", "ask", 3)
            why = await app.control.showing.explain(asked["id"])
            assert why["chance"] < 1
            assert why["plausible"][0] == asked["question"][0]
            await app.control.saying.feedback(asked["id"], "correction", action="card")
            again = await app.control.saying.say(said + " please", scope="desk")
            assert (again["by"], again["action"], again["question"]) == ("table", "card", [])
            await app.remembering.until_known("desk", (await app.journal.examples(1))[0].text)
            assert [outcome.status for outcome in await app.journal.outcomes_of(asked["id"])] == ["asked"]
            application.cancel(core)
