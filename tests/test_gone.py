"""A tool goes from the configuration while its feedback stays in the journal: the whole daemon starts, learns and decides without
it, and knows its lessons again when it comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import app as application
from runtime import config
from runtime.app import App
from runtime.catalogue import Tool
from runtime.config import Config
from runtime.errors import BadInput
from runtime.learning.jobs import Base
from runtime.messages import Action, Command, Decision, Feedback, Outcome, derived_id, new_id
from runtime.roles import Actuator, observe
from tests.policy import tiny

SAFETY = 200.0  # seconds after which a test that hangs is ended
TAUGHT = {
    "card": ["my card is lost", "the card was eaten", "card does not work", "where is my card"],
    "loan": ["i need a loan", "what does a loan cost", "loan for a house", "pay my loan back"],
    "lamp dim": ["it is dark in here", "dark evening", "too dark", "dark again"],
    "greeting": ["hello there", "good morning hello", "hello to you", "hello again"],
}
RECIPE = {
    "layers": "all", "epochs": 1, "min_steps": 5, "batch": 6, "word_drop": 0.0, "refit": 0, "dropout": 0.0, "seen": 0,
    "holdout": 0.3, "after": 0, "every": 0, "warm": False,
}  # fmt: skip
DEAD = ("card", "lamp")


@dataclass
class Desk(Actuator):
    """Sorts messages; nothing has to be done. `old`: what it could do before somebody changed the configuration, too."""

    old: bool = True

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        was, now = ("level", ["dim"]), ("brightness", ["half"])  # the lamp is another one now
        argument, values = was if self.old else now
        lamp = Tool(name="lamp", arguments={argument: {"enum": values}}, required=(argument,))
        kept = (Tool(name="loan"), Tool(name="greeting"), lamp)
        return {"desk": (Tool(name="card"), *kept) if self.old else kept}

    async def act(self, command: Command) -> Outcome:
        raise BadInput("nothing to do")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.llama(tmp_path_factory.mktemp("llama"))


def settings(model: Base, data: Path, *, old: bool) -> Config:
    return config.load(
        None, agent={"data": data}, broker={"mode": "none"}, learner=RECIPE, gate={"min_recall": 0.0},
        policy={"model": model.directory, "dtype": "float32", "ask": "never"},
        plugin=[{"use": "tests.test_gone:Desk", "name": "desk", "old": old}],
    )  # fmt: skip


@asynccontextmanager
async def office(model: Base, data: Path, *, old: bool) -> AsyncIterator[App]:
    async with asyncio.timeout(SAFETY), application.opened(settings(model, data, old=old)) as app:
        await app.policy.wait_ready()
        await app.restore()
        async with asyncio.TaskGroup() as core:
            await app.stages(core)
            yield app
            await app.drain()
            application.cancel(core)


async def hears(app: App, text: str) -> Decision:
    message = observe("office/desk/event", {"input": text}, at=time.time(), id=new_id("ev"))
    with app.bus.subscribe(Decision) as decisions:
        await app.ingest.emit(message)
        wanted = derived_id("dc", derived_id("pc", "desk", "speech", message.id, ""))
        async for decision in decisions:
            if decision.id == wanted:
                return decision
    raise AssertionError


async def teaches(app: App, text: str, right: str) -> str:
    decision = await hears(app, text)
    action = Action(tool="text", arguments={"text": right})
    said = Feedback(
        id=new_id("fb"), decision_id=decision.id, kind="correction", source="Ana", at=time.time(), action=action
    )
    await app.ingest.emit(said)
    await app.remembering.until_known("desk", text)
    return said.id


async def test_a_tool_that_is_gone_stops_nothing_and_its_lessons_come_back_with_it(model: Base, tmp_path: Path) -> None:
    ids: dict[str, list[str]] = {}
    async with office(model, tmp_path, old=True) as app:
        for right, texts in TAUGHT.items():
            ids[right] = [await teaches(app, text, right) for text in texts]
        by_memory = await hears(app, "the card is not here")
        assert by_memory.actions[0].tool == "card"

    async with application.offline(settings(model, tmp_path, old=False)):
        pass

    async with office(model, tmp_path, old=False) as app:
        await app.remembering.until_known("desk", "hello again")
        for text in ("my card is lost", "the card is not here", "dark again"):
            decision = await hears(app, text)
            assert app.catalogues.of("desk").allows(decision.actions[0]), f"{text}: {decision.actions[0]}"
        assert not any(lesson.id in {*ids["card"], *ids["lamp dim"]} for lesson in app.memory.lessons())
        assert (await app.explaining.mattered(by_memory))["pieces"], "also what was decided before can be asked about"
        cycle = await app.learner.cycle()
        assert cycle.state in ("released", "provisional", "rejected"), cycle.reason
        learnt = set(app.store.manifest(cycle.adapter).lineage)
        assert learnt <= {*ids["loan"], *ids["greeting"]}, "what comes back was never learnt by these weights"

    async with office(model, tmp_path, old=True) as app:
        await app.remembering.until_known("desk", "hello again")
        assert {lesson.id for lesson in app.memory.lessons()} == {id for part in ids.values() for id in part}
        again = await hears(app, "my card is lost")
        assert (again.by, again.actions[0].tool) == ("table", "card")
