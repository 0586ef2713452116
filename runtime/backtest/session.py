"""One history through the running loop: predict, be corrected or accepted, learn at growing points, be judged apart."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from msgspec import to_builtins

from runtime import satisfaction
from runtime.app import App
from runtime.backtest import report
from runtime.backtest.data import Codec, Line
from runtime.backtest.gauges import Gauges
from runtime.backtest.judged import Judged
from runtime.backtest.recall import Recall
from runtime.backtest.teacher import Said, Teacher
from runtime.bus import Subscription
from runtime.errors import BadAction
from runtime.learning import scores
from runtime.learning.naive_bayes import NaiveBayes
from runtime.messages import Action, Cycle, Decision, Observation, Percept, derived_id
from runtime.roles import observe

SCOPE = "stream"
TOPIC = f"backtest/{SCOPE}/event"
GROWTH = (100, 2)  # first learning point, factor to the next
REHEARSAL_PAUSE = 0.5  # seconds between two rehearsals while the trainer runs
TOLD_EVERY = 100  # events between two progress lines
log = structlog.get_logger("backtest")


class Road(Protocol):
    """How events reach the daemon and feedback goes back: directly, or over a broker."""

    async def event(self, observation: Observation) -> str:
        """Bring it in; the id under which the journal has it."""
        ...

    async def feedback(self, decision: Decision, said: Said) -> None: ...


class Session:
    """The stream through one app. `points`, `cycles` and `right` grow while it runs."""

    def __init__(
        self, app: App, road: Road, codec: Codec, holdout: Sequence[Line], teacher: Teacher, told: Callable[[str], None],
        *, stream: Sequence[Line], outside: Sequence[Line] = (),
    ) -> None:  # fmt: skip
        self.app, self.road, self.codec, self.holdout, self._told = app, road, codec, holdout, told
        self._teacher, self._stream, self._outside = teacher, stream, outside
        self.recall = Recall(holdout)
        self.judged: list[Judged] = []  # the holdout, at every point
        self.end: dict[str, Any] = {}
        self.gauges = Gauges()
        self.bayes = NaiveBayes()
        self.right: list[bool] = []
        self.corrections = 0
        self.invalid = 0
        self.points: list[dict[str, Any]] = []
        self.cycles: list[dict[str, Any]] = []
        self.free: dict[str, str] | None = None
        self._past: list[str] = []

    async def run(self, stream: Sequence[Line], learn_every: int | None) -> None:
        await self.point(0)
        due = learning_points(len(stream), learn_every)
        with self.app.bus.subscribe(Decision) as decisions:
            for number, line in enumerate(stream, start=1):
                await self._event(number, line, decisions)
                if number % TOLD_EVERY == 0:
                    self._told(
                        f"{number} events, {self.corrections} corrections, {scores.accuracy([True] * len(self.right), self.right):.1%} right so far"
                    )
                if number in due:
                    once = self.recall.once()
                    await self._learn(number, decisions)
                    self.recall.after.extend((await self._judge(once)).right if once else [])
                    await self.point(number)

    async def _event(self, number: int, line: Line, decisions: Subscription[Decision]) -> None:
        """Test, then teach."""
        gold = self.codec.action(line.output)
        message = observe(TOPIC, {"input": line.input}, at=time.time(), id=f"backtest-{number}", source="backtest")
        decision = await _answer_to(decisions, await self.road.event(message))
        self.gauges.decided(decision, training=False)
        right = decision.actions[0] == gold
        self.right.append(right)
        self._check(decision)
        said = self._teacher.says(decision.actions[0], gold)
        self.corrections += said.action is not None
        await self.road.feedback(decision, said)
        await self._taught(line, said)
        self.bayes.learn(line.input, line.output)
        self._past.append(line.input)

    def _check(self, decision: Decision) -> None:
        try:
            self.app.catalogues.of(SCOPE).check(decision.actions[0])
        except BadAction as error:
            self.invalid += 1
            log.warning("invalid decision", error=str(error))

    async def _learn(self, events: int, decisions: Subscription[Decision]) -> None:
        """The stream waits for the verdict; unscored repeats of past inputs keep the policy busy meanwhile."""
        self._told(f"learning from {events} events")
        cycle_task = asyncio.create_task(self.app.learner.cycle(), name="backtest cycle")
        load = asyncio.create_task(self._rehearse(cycle_task, decisions, events), name="rehearsals")
        cycle = await cycle_task
        await load
        self.cycles.append(_cycle_row(cycle))
        self._told(f"{cycle.state}: {cycle.reason}")

    async def _rehearse(self, cycle: asyncio.Task[Cycle], decisions: Subscription[Decision], events: int) -> None:
        """Rehearsals one after the other until two are done after the cycle's end."""
        adapter, beyond, number = self.app.serving.adapter, 0, 0
        while beyond < 2:
            text = self._past[number % len(self._past)]
            percept = Percept(
                id=derived_id("pc", "rehearsal", str(events), str(number)), scope=SCOPE, kind="speech", at=time.time(), synthetic=True,
                text=self.app.perception.vocabulary.readings(text),
            )  # fmt: skip
            await self.app.journal.put(percept)
            await self.app.bus.publish(percept)
            decision = await decisions.get()
            self.gauges.decided(decision, training=True)
            if decision.adapter != adapter:
                adapter = decision.adapter
                self.gauges.swapped(time.monotonic())
            trainer = self.app.learner.process
            self.gauges.memory(self.app.policy.pid, trainer.pid if trainer else None)
            beyond += cycle.done()
            number += 1
            if not cycle.done():  # a house asks now and then; without a pause the load would be the busiest imaginable
                await asyncio.wait({cycle}, timeout=REHEARSAL_PAUSE)

    async def _taught(self, line: Line, said: Said) -> None:
        """Ask other rows of the class right after its first lesson."""
        others = self.recall.taught(line, said, self.corrections)
        if not others or not self.app.decider.memory_on:
            return
        text = self.app.perception.vocabulary.readings(line.input)
        await self.app.remembering.until_known(SCOPE, text)
        self.recall.before.extend((await self._judge(others)).right)

    async def _judge(self, lines: Sequence[Line]) -> Judged:
        """What serves, asked past journal and dedupe, in batches."""
        app, catalogue = self.app, self.app.catalogues.of(SCOPE)
        texts = [app.perception.vocabulary.readings(line.input) for line in lines]
        gold = [self.codec.action(line.output) for line in lines]
        rows = await app.policy.score(
            texts, catalogue, app.serving.adapter, gold=gold, feature=app.decider.memory_on
        )  # fmt: skip
        believed = [
            app.decider.believe(SCOPE, text, row, app.serving.trust, app.serving.adapter)
            for text, row in zip(texts, rows, strict=True)
        ]
        tables = [self._table(text) for text in texts]
        return Judged(gold, rows, believed, tables, app.serving.trust, app.config.policy.miss)

    async def point(self, events: int) -> None:
        """Judge what serves on the holdout."""
        judged = await self._judge(self.holdout)
        self.judged.append(judged)
        self._show_free(judged.rows)
        keys, said = judged.keys, judged.weights
        point = {
            "events": events,
            "corrections": self.corrections,
            "adapter": self.app.serving.adapter,
            "accuracy": scores.accuracy([True] * len(keys), judged.right),
            "accuracy_memory_off": scores.accuracy(keys, said),
            "accuracy_memory_only": scores.accuracy(keys, judged.memory),
            "balanced_accuracy": scores.balanced_accuracy(keys, said),
            "macro_f1": scores.macro_f1(keys, said),
            "log_loss": scores.log_loss([row.log_p_gold for row in judged.rows]),
            "by_domain": self._by_domain(keys, said),
        }
        if self.codec.structured:
            tools = [row.chosen.tool for row in judged.rows]
            point["intent_accuracy"] = scores.accuracy([a.tool for a in judged.gold], tools)
        self.points.append(point)
        self._told(
            f"after {events} events: {point['accuracy']:.1%} of {len(keys)} held-out rows, "
            f"{point['accuracy_memory_off']:.1%} by the weights alone ({point['adapter']})"
        )

    async def finish(self) -> dict[str, Any]:
        """What is asked once, at the end, and what follows from all points."""
        asked = await self.recall.asked(self._judge)
        outside = await self._judge(self._outside) if self._outside else None
        return {
            **report.summary(self.points, self.judged, self.cycles, outside, self._stream),
            "recall": asked,
            "satisfaction": await self._satisfaction(),
        }

    async def _satisfaction(self) -> dict[str, Any]:
        """As it is measured live, but without a limit of time: rows come as fast as they are decided."""
        journal = self.app.journal
        turns, releases = await journal.turns(satisfaction.LOOK_BACK), (await journal.releases())[::-1]
        found = satisfaction.report(turns, releases, now=math.inf, within=math.inf)
        return {**to_builtins(found.all), "versions": list(to_builtins(found.versions))}

    def _table(self, text: str) -> Action | None:
        found = self.app.table.lookup(Percept(id="", scope=SCOPE, text=text, at=0.0))
        return found[0] if found and self.app.config.policy.table else None

    def _show_free(self, rows: Sequence[Any]) -> None:
        for line, row in zip(self.holdout, rows, strict=True):
            if row.free and self.codec.replies:
                self.free = {"input": line.input, "reply": str(row.chosen.arguments.get("text", ""))}
                return

    def _by_domain(self, gold: Sequence[str], said: Sequence[str]) -> dict[str, float]:
        hits: defaultdict[str, list[bool]] = defaultdict(list)
        for line, g, s in zip(self.holdout, gold, said, strict=True):
            hits[line.domain].append(g == s)
        return {domain: sum(row) / len(row) for domain, row in sorted(hits.items()) if domain}


def learning_points(events: int, every: int | None) -> set[int]:
    """100, 200, 400 ... or every N; the end is always one."""
    if every:
        return {*range(every, events, every), events}
    points, at = {events}, GROWTH[0]
    while at < events:
        points.add(at)
        at *= GROWTH[1]
    return points


async def _answer_to(decisions: Subscription[Decision], observation_id: str) -> Decision:
    wanted = derived_id("dc", derived_id("pc", SCOPE, "speech", observation_id, ""))
    async for decision in decisions:
        if decision.id == wanted:
            return decision
    raise AssertionError("the bus ended")


def _cycle_row(cycle: Cycle) -> dict[str, Any]:
    return {
        "examples": cycle.examples,
        "seconds": cycle.report.get("seconds"),
        "wall_seconds": round((cycle.ended_at or cycle.started_at) - cycle.started_at, 1),
        "examples_per_second": cycle.report.get("examples_per_second"),
        "verdict": cycle.state,
        "reason": cycle.reason,
        "doubted": cycle.report.get("doubted", 0),
        "doubted_by_source": cycle.report.get("doubted_by_source", {}),
        "distrusted": cycle.report.get("distrusted", []),
        "feedback_to_live_seconds": cycle.report.get("feedback_to_live_seconds"),
    }
