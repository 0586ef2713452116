"""Why it decided so, with the whole daemon in one process and a small random model: what mattered, what changed, and the
proof by leaving the causes out, of which nothing is left but its answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime import app as application
from runtime import config
from runtime.app import App
from runtime.catalogue import REPLY, Tool
from runtime.errors import BadInput, NotFound
from runtime.learning.jobs import Base
from runtime.messages import Command, Decision, Outcome, derived_id, new_id
from runtime.roles import Actuator, observe
from tests.policy import tiny

SAFETY = 200.0  # seconds after which a test that hangs is ended
MEANT = Tool(name="card", description=""), Tool(name="loan", description=""), Tool(name="greeting", description="")
TAUGHT = {
    "card": ["my card is lost", "the card was eaten", "card does not work", "where is my card"],
    "loan": ["i need a loan", "what does a loan cost", "loan for a house", "pay my loan back"],
    "greeting": ["hello there", "good morning hello", "hello to you", "hello again"],
}
RECIPE = {
    "layers": "all", "epochs": 1, "min_steps": 60, "lr": 0.02, "batch": 6, "word_drop": 0.0, "refit": 0, "dropout": 0.0,
    "seen": 0, "holdout": 0.0, "after": 0, "every": 0, "warm": False,
}  # fmt: skip


@dataclass
class Desk(Actuator):
    """Sorts messages and answers; no device."""

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return {"desk": MEANT, "chat": (REPLY,)}

    async def act(self, command: Command) -> Outcome:
        raise BadInput("nothing to do")


class Office:
    """The daemon and the person at the desk."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def hears(self, text: str) -> Decision:
        message = observe("office/desk/event", {"input": text}, at=time.time(), id=new_id("ev"))
        with self.app.bus.subscribe(Decision) as decisions:
            await self.app.ingest.emit(message)
            wanted = derived_id("dc", derived_id("pc", "desk", "speech", message.id, ""))
            async for decision in decisions:
                if decision.id == wanted:
                    return decision
        raise AssertionError

    async def teaches(self, text: str, right: str) -> None:
        decision = await self.hears(text)
        await self.app.control.saying.feedback(decision.id, "correction", action=right, source="Ana")
        await self.app.remembering.until_known("desk", text)

    async def proof(self, decision: Decision) -> dict[str, Any]:
        await self.app.control.showing.prove(decision.id)
        return await self.app.counterfactuals.until_over(decision.id)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return tiny.llama(tmp_path_factory.mktemp("llama"))


@asynccontextmanager
async def office(model: Base, data: Path, **recipe: Any) -> AsyncIterator[Office]:
    settings = config.load(
        None, agent={"data": data}, broker={"mode": "none"}, learner={**RECIPE, **recipe}, gate={"min_recall": 0.0},
        policy={"model": model.directory, "dtype": "float32", "ask": "never", "reply_tokens": 4},
    )  # fmt: skip
    desk = Desk()
    desk.name = "desk"
    async with asyncio.timeout(SAFETY), application.opened(settings, extra=[desk]) as app:
        await app.policy.wait_ready()
        await app.restore()
        async with asyncio.TaskGroup() as core:
            await app.stages(core)
            yield Office(app)
            await app.drain()
            application.cancel(core)


def loaded(app: App) -> set[str]:
    return set(app.policy._adapters)


async def test_an_explanation_from_the_first_lesson_to_the_proof(model: Base, tmp_path: Path) -> None:
    async with office(model, tmp_path) as there:
        app, control = there.app, there.app.control
        for right, texts in TAUGHT.items():
            for text in texts:
                await there.teaches(text, right)

        by_memory = await there.hears("hello there my friend")
        assert (by_memory.actions[0].tool, by_memory.adapter) == ("greeting", "base")
        mattered = await control.showing.mattered(by_memory.id)
        strongest = max(mattered["pieces"], key=lambda piece: piece["both"])
        assert (mattered["action"], strongest["text"]) == ("greeting", "hello")

        told = await there.proof(by_memory)
        assert told["state"] == "done", told["why"]
        assert (told["both"]["action"], told["memory"]["flips"]) == ("greeting", True)
        assert told["weights"]["flips"] is False, "the base model was never taught anything"

        cycle = await app.learner.cycle()
        serving = app.serving.adapter
        assert cycle.state in ("released", "provisional"), cycle.reason
        by_weights = await there.hears("hello my dear")
        before = (loaded(app), sorted(app.store.root.iterdir()), await control.looking.adapters())

        told = await there.proof(by_weights)
        assert told["state"] == "done", told["why"]
        removed = {lesson["text"] for lesson in told["removed"]}
        assert removed <= set(TAUGHT["greeting"])
        named = {c["text"] for c in (await control.showing.explain(by_weights.id))["remembered"] if c["named"]}
        assert named == removed, "what is shown as a cause is what is left out"
        assert told["both"]["p_without"] < told["both"]["p"]
        assert told["weights"]["p_without"] < told["weights"]["p"]
        assert (loaded(app), sorted(app.store.root.iterdir()), await control.looking.adapters()) == before
        assert (app.serving.adapter, app.learner.current, app.learner.beside) == (serving, None, None)
        assert list((tmp_path / "jobs").glob("apart-*")) == []
        assert (await app.journal.counts())["release"] == 1

        changed = await control.looking.changes(serving)
        assert (changed["id"], changed["since"], changed["lessons"]) == (serving, "base", {"new": 12, "gone": 0})
        assert {m["layer"] for m in changed["modules"]} == {0, 1, 2, 3}
        assert changed["share"] > 0
        assert changed["asked"] == 13
        assert 0 < len(changed["flips"]) <= 13, "a random model decides otherwise than one that was taught"
        assert await control.looking.changes(serving) is changed, "the same two are not asked again"
        assert (await control.looking.changes(serving, serving))["flips"] == []
        assert loaded(app) == before[0]


async def test_what_cannot_be_explained_is_said_so(model: Base, tmp_path: Path) -> None:
    async with office(model, tmp_path) as there:
        decision = await there.hears("hello")
        assert (await there.app.control.showing.mattered(decision.id))["pieces"] == []
        told = await there.proof(decision)
        assert (told["state"], "nothing that people taught" in told["why"]) == ("failed", True)
        with pytest.raises(NotFound, match="nobody asked for a proof"):
            await there.app.control.showing.proof("dc-404")
        with pytest.raises(NotFound, match="no adapter"):
            await there.app.control.looking.changes("0123456789ab")

        reply = await there.app.control.saying.say("what is the weather")
        mattered = await there.app.control.showing.mattered(reply["id"])
        assert (mattered["action"], mattered["against"]) == (reply["action"], ""), "words of its own have no runner-up"
        assert [piece["text"] for piece in mattered["pieces"]] == ["what", "is", "the", "weather"]
        assert any(piece["weights"] for piece in mattered["pieces"])
