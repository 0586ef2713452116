"""The whole daemon: 20 new corrections on a store of 1,000 until they serve, decisions meanwhile, memory of all processes.

    python -m tests.benchmarks.own_live --data FILE [--store 1000] [--new 20] [--rate 2]

The store is written into the journal as corrections; everything after that is the daemon's own doing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from runtime import app as application
from runtime.app import App
from runtime.backtest import Listed
from runtime.backtest.gauges import Gauges
from runtime.backtest.session import SCOPE
from runtime.config import load
from runtime.learning.scores import percentile
from runtime.messages import Action, Decision, Feedback, Percept, Release, new_id
from tests.benchmarks.peers import data as peer_data

IDLE = 60  # decisions that are timed before anything is learnt
PATIENCE = 1200.0  # seconds
SETTLE = 2.0  # seconds after a release in which the cycle's row is written


@dataclass
class Traffic:
    """Unscored decisions at a steady rate."""

    app: App
    texts: list[str]
    rate: float
    idle: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    gauges: Gauges = field(default_factory=Gauges)
    enough: asyncio.Event = field(default_factory=asyncio.Event)  # timed while nothing trained

    async def run(self) -> None:
        with self.app.bus.subscribe(Decision) as decisions:
            for number in range(10**9):
                begun = time.monotonic()
                busy = self.app.learner.process is not None
                await put_percept(self.app, f"traffic-{number}", self.texts[number % len(self.texts)])
                decision = await decisions.get()
                assert decision.by == "model", decision.note
                still = self.app.learner.process is not None
                if busy == still:
                    (self.training if busy else self.idle).append(decision.timings_ms["decide"])
                if len(self.idle) >= IDLE:
                    self.enough.set()
                trainer = self.app.learner.process or self.app.learner.spare
                self.gauges.memory(self.app.policy.pid, trainer.pid if trainer else None)
                await asyncio.sleep(max(0.0, begun + 1 / self.rate - time.monotonic()))


async def put_percept(app: App, name: str, text: str) -> Percept:
    percept = Percept(id=f"pc-{name}", scope=SCOPE, kind="speech", at=time.time(), synthetic=True, text=text)
    await app.journal.put(percept)
    await app.bus.publish(percept)
    return percept


async def teach(app: App, number: int, text: str, right: Action, wrong: Action) -> Feedback:
    """A decision that was wrong, and its correction, as the journal has them."""
    at = time.time()
    percept = Percept(
        id=f"pc-{number}", scope=SCOPE, kind="speech", at=at, text=app.perception.vocabulary.readings(text)
    )
    decision = Decision(
        id=f"dc-{number}",
        percept_id=percept.id,
        scope=SCOPE,
        actions=(wrong,),
        by="model",
        adapter="base",
        p_model=0.5,
        p_behaviour=1.0,
        at=at,
    )
    feedback = Feedback(
        id=new_id("fb"), decision_id=decision.id, kind="correction", source="bench", at=at, action=right
    )
    await app.journal.put(percept, decision, feedback)
    return feedback


async def run(asked: argparse.Namespace) -> dict[str, Any]:
    contents = peer_data.read(asked.data)
    catalogue = peer_data.catalogue(contents)
    actions = {catalogue.render(action): action for action in catalogue.finite()}
    items = [(item["input"], actions[item["answer"]]) for item in contents["train"]]
    wrong = next(iter(actions.values()))
    with tempfile.TemporaryDirectory(prefix="corrigible-bench-") as scratch:
        config = load(
            None,
            agent={"data": scratch, "instruction": contents["instruction"]},
            broker={"mode": "none"},
            learner={"preset": "quick", "every": 0, "after": asked.new, **dict(p.split("=") for p in asked.set)},
        )
        plugin = Listed(catalogue.tools)
        plugin.name = "bench"
        async with application.opened(config, extra=[plugin]) as app, running(app):
            for number, (text, right) in enumerate(items[: asked.store]):
                await teach(app, number, text, right, wrong)
            first = await learnt(app)
            traffic = Traffic(app, [item["input"] for item in contents["held"]], asked.rate)
            flowing = asyncio.create_task(traffic.run())
            await traffic.enough.wait()
            with app.bus.subscribe(Release) as releases:
                for number, (text, right) in enumerate(items[asked.store : asked.store + asked.new], asked.store):
                    await app.bus.publish(await teach(app, number, text, right, wrong))
                said = time.monotonic()
                release = await asyncio.wait_for(releases.get(), PATIENCE)
                live = time.monotonic() - said
            await asyncio.sleep(SETTLE)
            flowing.cancel()
            with suppress(asyncio.CancelledError):
                await flowing
            cycle = (await app.journal.cycles(1))[0]
    pss = traffic.gauges.report(0)["pss_mb"]
    assert isinstance(pss, dict)
    return {
        "live_seconds": round(live, 2),
        "provisional": release.provisional,
        "first_cycle": told(first),
        "second_cycle": told(cycle),
        "p95_idle_ms": percentile(traffic.idle, 0.95),
        "p95_training_ms": percentile(traffic.training, 0.95),
        "p50_idle_ms": percentile(traffic.idle, 0.5),
        "p50_training_ms": percentile(traffic.training, 0.5),
        "decisions_while_training": len(traffic.training),
        "pss_mb": {**pss, "total": round(sum(pss.values()), 1)},
    }


async def learnt(app: App) -> Any:
    """A cycle that is asked for, to its release."""
    with app.bus.subscribe(Release) as releases:
        app.learner.ask()
        await asyncio.wait_for(releases.get(), PATIENCE)
    await asyncio.sleep(SETTLE)
    return (await app.journal.cycles(1))[0]


def told(cycle: Any) -> dict[str, Any]:
    report = cycle.report
    return {
        "state": cycle.state, "reason": cycle.reason, "wall": round((cycle.ended_at or 0) - cycle.started_at, 1),
        **{key: report.get(key) for key in ("examples", "seconds", "examples_per_second", "states_computed", "partial")},
    }  # fmt: skip


@asynccontextmanager
async def running(app: App) -> AsyncIterator[None]:
    """The stages, until the block ends."""
    await app.policy.wait_ready()
    await app.restore()
    async with asyncio.TaskGroup() as core:
        await app.stages(core)
        yield
        await app.drain()
        application.cancel(core)


def main() -> None:
    parser = argparse.ArgumentParser(description="20 new corrections on a store of 1,000")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=int, default=1000)
    parser.add_argument("--new", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--set", nargs="*", default=[], help="[learner] keys: key=value")
    print(json.dumps(msgspec.to_builtins(asyncio.run(run(parser.parse_args())))))


if __name__ == "__main__":
    main()
