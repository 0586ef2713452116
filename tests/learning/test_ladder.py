"""The whole ladder with the real learner, the real trainer and a tiny model: veto, drift, shadow, canary, full, and a restart
on every rung."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from runtime import config
from runtime.bus import Bus
from runtime.catalogue import Catalogue
from runtime.decision import Decider, Serving
from runtime.journal import Journal
from runtime.learning import ladder
from runtime.learning.jobs import Base
from runtime.learning.learner import Learner
from runtime.learning.monitor import UP
from runtime.learning.offpolicy import Estimate
from runtime.learning.reference import Drift
from runtime.learning.registry import Registry
from runtime.learning.releases import Releases
from runtime.learning.unlearning import Unlearning
from runtime.messages import Action, Cycle, Decision, Feedback
from runtime.metrics import Metrics
from runtime.policy.backbone import Backbone
from runtime.policy.protocol import Row
from runtime.policy.scoring import Scorer
from runtime.probation import Probation
from runtime.shadowing import Shadowing
from runtime.situations import Catalogues
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, LAMP, percept

OFF = Action(tool="lamp", arguments={"level": "off"})
SAFETY = 120.0  # seconds after which a test that hangs is ended
SHADOW = 3
TAUGHT = {"It is dark.": BRIGHT, "We watch a film.": DIM, "Good night.": OFF}
TINY: dict[str, Any] = {
    "layers": "all", "epochs": 1, "min_steps": 60, "lr": 0.02, "batch": 6, "word_drop": 0.0, "refit": 0, "dropout": 0.0,
    "seen": 0, "warm": False, "holdout": 0.0,
}  # fmt: skip


class Local:
    """The policy in this process."""

    def __init__(self, base: Base) -> None:
        self._backbone = Backbone(base)
        self._scorer = Scorer(
            self._backbone, "You run a home. Choose what to do.", reply_tokens=12, free_below=0.5, catalogue_tokens=0
        )

    async def load(self, adapter: str, directory: Path) -> list[float]:
        self._scorer.forget(adapter)
        self._backbone.load(adapter, directory)
        return list(self._backbone.fingerprint(adapter))

    async def unload(self, adapter: str) -> None:
        self._backbone.unload(adapter)

    async def score(
        self, texts: Sequence[str], catalogue: Catalogue, adapter: str, *, feature: bool = False
    ) -> list[Row]:
        return self._scorer.score(texts, catalogue, adapter)

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Row:
        return (await self.score([text], catalogue, adapter))[0]


@dataclass
class House:
    """Everything that takes part in a release, as one start of the daemon builds it."""

    journal: Journal
    learner: Learner
    releases: Releases
    store: Registry
    decider: Decider
    serving: Serving
    shadowing: Shadowing
    probation: Probation
    number: int = 0

    async def decides(self, text: str, **changes: Any) -> Decision:
        self.number = (await self.journal.counts())["percept"]
        said = percept(self.number, text)
        made = replace(await self.decider.decide(said), at=float(1000 + self.number), **changes)
        await self.journal.put(said, made)
        await self.shadowing.watch(made)
        return made

    async def says(self, decision: Decision, **word: Any) -> None:
        feedback = Feedback(id=f"fb-{decision.id}", decision_id=decision.id, source="Ana", at=decision.at, **word)
        await self.journal.put(feedback)
        await self.probation.hear(feedback)

    async def corrects(self, text: str, to: Action) -> None:
        await self.says(await self.decides(text), kind="correction", action=to)

    async def cycle(self) -> Cycle:
        async with asyncio.timeout(SAFETY):
            return await self.learner.cycle()

    async def rung(self) -> str:
        release = await self.journal.serving()
        assert release is not None
        return ladder.rung(release, await ladder.watched(self.journal, release))


@asynccontextmanager
async def house(folder: Path, model: Base, policy: Local) -> AsyncIterator[House]:
    settings = config.load(
        None, agent={"data": folder}, learner=TINY, gate={"shadow": SHADOW}, policy={"memory": False, "table": False}
    )
    async with Journal.open(folder / "j.db") as journal:
        bus, serving, rooms = Bus(), Serving("base"), Catalogues([{"room": (LAMP,)}])
        decider = Decider(
            journal, bus, policy, rooms, CorrectionTable(), serving, settings.policy, Metrics(), clock=lambda: 1.0
        )
        store = Registry(folder / "adapters")
        releases = Releases(
            journal, bus, policy, store, serving, settings.gate, Metrics(), lambda: model, clock=lambda: 1.0
        )
        learner = Learner(
            journal, bus, rooms, releases, Unlearning(journal, store, serving, releases, folder / "states"), settings, Metrics(),
            lambda: model, clock=lambda: 1.0,
        )  # fmt: skip
        await releases.restore()
        yield House(
            journal, learner, releases, store, decider, serving,
            Shadowing(journal, policy, rooms, serving, decider, releases, feature=False, clock=lambda: 1.0),
            Probation(journal, policy, rooms, releases, clock=lambda: 1.0),
        )  # fmt: skip


@pytest.fixture
def policy(model: Base) -> Local:
    return Local(model)


async def taught(at: House) -> str:
    """A first version that serves in full."""
    for text, right in TAUGHT.items():
        await at.corrects(text, right)
    first = await at.cycle()
    assert first.state == "provisional", first.reason
    assert first.report["drift"] is None, "the base model was never taught: nothing to measure a change by"
    assert await at.rung() == "full"
    newest = await at.journal.serving()
    assert newest is not None
    await at.releases.confirm(newest, "for the test")
    return first.adapter


async def test_from_shadow_to_full_over_restarts(tmp_path: Path, model: Base, policy: Local) -> None:
    async with house(tmp_path, model, policy) as at:
        first = await taught(at)
        await at.corrects("It is dark.", DIM)  # the habit changes
        ended = await at.cycle()
        assert ended.state == "provisional", ended.reason
        seen = msgspec.convert(ended.report["drift"], Drift)
        assert seen.situations == len(TAUGHT)
        assert {flip.text: (flip.before, flip.after) for flip in seen.flipped}["It is dark."] == (
            "lamp bright",
            "lamp dim",
        )
        assert f"of {seen.situations} reference decisions" in ended.reason
        second = ended.adapter
        assert msgspec.convert(at.store.manifest(second).scores["drift"], Drift) == replace(seen, flipped=())
        assert (await at.rung(), at.serving.share) == ("shadow", 0.0)
        assert (await at.decides("Good night.")).adapter == first
    async with house(tmp_path, model, policy) as at:  # restarted in shadow
        assert (await at.rung(), at.serving.adapter, at.serving.deciding) == ("shadow", second, first)
        for _ in range(SHADOW - 1):
            assert (await at.decides("It is dark.")).actions == (BRIGHT,), "it only watches"
        assert (await at.rung(), at.serving.share) == ("canary", 0.5)
        assert {(await at.decides("It is dark.")).adapter for _ in range(16)} == {first, second}
    async with house(tmp_path, model, policy) as at:  # restarted as a canary
        assert (await at.rung(), at.serving.share) == ("canary", 0.5)
        for _ in range(UP):
            assert await at.rung() == "canary"
            made = await at.decides("It is dark.")
            await at.says(made, kind="acceptance" if made.actions[0] == DIM else "correction", action=DIM)
        assert (await at.rung(), at.serving.adapter, at.serving.against) == ("full", second, None)
        newest = await at.journal.serving()
        assert newest is not None
        assert f"proven against {first}: {UP} won and 0 lost" in newest.reason
    async with house(tmp_path, model, policy) as at:
        assert (await at.rung(), at.serving.adapter, at.serving.against) == ("full", second, None)


async def test_what_chance_tried_and_people_liked_vetoes_who_would_drop_it(
    tmp_path: Path, model: Base, policy: Local
) -> None:
    """Somebody corrects what others, asked by chance, were content with."""
    async with house(tmp_path, model, policy) as at:
        first = await taught(at)
        for number in range(120):
            action, rating = ((BRIGHT, 1.0), (DIM, -1.0))[number % 2]
            made = await at.decides("It is dark.", actions=(action,), p_behaviour=0.5)
            await at.says(made, kind="rating", rating=rating)
        await at.corrects("It is dark.", DIM)
        ended = await at.cycle()
        assert ended.state == "rejected"
        assert "vetoed: on 120 decisions by chance" in ended.reason
        found = msgspec.convert(ended.report["off_policy"], Estimate)
        assert (found.champion.snips, found.candidate.snips) == (1.0, 0.0)
        assert found.upper < 0
        assert at.serving.adapter == first
