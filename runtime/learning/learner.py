"""JOURNAL -> examples -> trainer process -> gate -> version -> Release: decides when to learn, and carries a cycle through.

The trainer is a process of low priority that never opens the database. Whatever happens to it (crash, NaN, out of
memory, kill) leaves the serving adapter as it is and ends the cycle with a reason a person can read.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
from msgspec.structs import replace

from runtime.bus import Bus, Subscription
from runtime.config import Config, LearnerConfig
from runtime.errors import CorrigibleError, Corrupt
from runtime.journal import Journal
from runtime.learning import (
    cases,
    curation,
    duplicates,
    evidence,
    gate,
    jobs,
    knowing,
    plan,
    trainer,
    trust,
    windows,
)
from runtime.learning.memory import Memory
from runtime.learning.releases import Releases
from runtime.learning.trust import Trust
from runtime.learning.unlearning import Unlearning
from runtime.messages import Cycle, Example, Feedback, new_id
from runtime.metrics import Metrics
from runtime.situations import Catalogues

log = structlog.get_logger("learner")
TUNED = "tuned"  # the journal's note of settings that a search has found
AGAIN = 60.0  # seconds after which a cycle that failed is tried again; twice as many after every further one
POLL = 0.5  # seconds between looks at the clock and at the trainer's progress


class Believer(Protocol):
    """Who says which examples are believed."""

    async def look(self, examples: Sequence[Example]) -> list[Example]: ...
    def believes(self, feedback: str, source: str) -> bool: ...
    def trust(self, source: str) -> float: ...
    def report(self) -> dict[str, Any]: ...


class Activity(Protocol):
    """When the last decision was made, for `[learner] idle`."""

    @property
    def last_at(self) -> float: ...


class Learner:
    """The stage. `ask` starts a cycle now; `run` starts them when they are due."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        catalogues: Catalogues,
        releases: Releases,
        unlearning: Unlearning,
        config: Config,
        metrics: Metrics,
        model: Callable[[], jobs.Base],
        *,
        memory: Memory | None = None,
        doubts: Believer | None = None,
        clock: Callable[[], float] = time.time,
        timezone: tzinfo | None = None,
    ) -> None:
        self._journal = journal
        self._bus = bus
        self._catalogues = catalogues
        self._releases, self._unlearning = releases, unlearning
        self._config = config
        self._metrics = metrics
        self._model = model
        self._memory, self._doubts = memory, doubts
        self._clock = clock
        self._timezone = timezone
        self._partial = False  # what serves was trained on a part of the examples
        self._cases = cases.read(config.gate.must_pass)
        self._asked = asyncio.Event()
        self._new = 0  # feedbacks since the last cycle began
        self._drift = ""  # what changed since then
        self._failures = 0  # cycles in a row that failed
        self._owed = False  # the last of them was to unlearn something
        self._last = clock()
        self.current: Cycle | None = None
        self.process: trainer.Trainer | None = None
        self.spare: trainer.Trainer | None = None  # has the model loaded and waits for a job
        self.beside: trainer.Trainer | None = None  # trains apart from all cycles (`runtime.learning.apart`)

    def ask(self) -> None:
        """Start a cycle as soon as none is running."""
        self._asked.set()

    def drifted(self, reason: str) -> None:
        """People's habits, or what comes in, have changed: a cycle is due as soon as one may begin by itself."""
        self._drift = reason

    async def run(self, feedbacks: Subscription[Feedback], activity: Activity) -> None:
        await self._close_interrupted()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._count(feedbacks), name="count feedback")
                while True:
                    await self._keep_one_ready()
                    idle = await self._until_due(activity)
                    await self.cycle(whole=idle)
        finally:
            if self.spare is not None:
                await self.spare.stop()

    async def _keep_one_ready(self) -> None:
        settings = self._config.learner
        if settings.enabled and settings.warm and self.spare is None:
            with suppress(CorrigibleError, OSError):  # then it starts when it is needed
                base = await asyncio.to_thread(self._model)
                self.spare = trainer.Trainer(nice=settings.nice, threads=settings.threads)
                await self.spare.ready(base)

    def yield_to(self, busy: bool) -> None:
        """Decisions begin or end to wait: a trainer, at work or getting ready, stands still meanwhile."""
        for one in (self.process, self.spare, self.beside):
            if one is not None and self._config.learner.pause:
                one.yield_to(busy)

    async def _count(self, feedbacks: Subscription[Feedback]) -> None:
        async for _ in feedbacks:
            self._new += 1

    async def _until_due(self, activity: Activity) -> bool:
        """True if nobody asked and nothing happens: there is time for more than the quickest way."""
        while not self._asked.is_set():
            if why := self._due(activity):
                return why == "idle"
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._asked.wait()
        self._asked.clear()
        return False

    def _due(self, activity: Activity) -> str:
        """Why a cycle is due by itself; "" if it is not."""
        settings, now = self._config.learner, self._clock()
        if self._failures and now - self._last < AGAIN * 2.0 ** min(self._failures - 1, 6):
            return ""
        resting = bool(settings.idle) and now - activity.last_at >= settings.idle
        if not settings.enabled or not self._allowed(now):
            return ""
        if self._owed:
            return "forget"
        if not (self._new or (self._partial and resting)):
            return ""
        if resting:
            return "idle"
        if self._drift:
            return "drift"
        if settings.after and self._new >= settings.after:
            return "count"
        return "time" if settings.every and now - self._last >= settings.every else ""

    def _allowed(self, now: float) -> bool:
        if self._journal.low:
            return False
        settings = self._config.learner
        local = datetime.fromtimestamp(now, self._timezone)
        return windows.open_now(settings.hours, local) and windows.load_allows(settings.max_load, os.getloadavg()[0])

    async def _close_interrupted(self) -> None:
        """A cycle that was running when the daemon died is over; its feedback counts as new."""
        cycles = await self._journal.cycles(50)
        for cycle in cycles:
            if cycle.state == "running":
                await self._finish(cycle, "failed", "interrupted by a restart of the daemon")
        done = next((c for c in cycles if c.state in ("released", "provisional", "rejected")), None)
        self._new = await self._journal.feedback_since(done.started_at if done else 0.0)
        self._partial = bool(done and done.report.get("partial"))
        await self._unlearning.unlearn()

    async def cycle(self, whole: bool = False) -> Cycle:
        """One cycle; returns how it ended, never raises for what the trainer does. `whole`: train on everything, however
        long it takes, and search for better settings if `[learner] tune` says so."""
        new, self._new, self._last, self._owed = self._new, 0, self._clock(), False
        cycle = Cycle(id=new_id("cy"), state="running", reason=self._drift, started_at=self._clock())
        self._drift = ""
        try:
            ended = await self._learn(cycle, whole)
            self._failures = 0
            return ended
        except (CorrigibleError, OSError) as error:
            self._failures += 1
            self._new += new  # what was to be learnt still is
            self._owed = await self._unlearning.tainted()
            return await self._finish(self.current or cycle, "failed", str(error))
        finally:
            self.current = None
            await self._unlearning.over()

    async def _learn(self, cycle: Cycle, whole: bool) -> Cycle:
        settings = await self._settings(changed=bool(cycle.reason))
        disliked = settings.objective in ("kto", "reward")
        words = await self._journal.words(settings.window, disliked)
        tainted = await self._unlearning.begin([word.id for word in words])
        examples = await self._believed(self._catalogues.possible(words), settings)
        if not examples:
            ended = await self._finish(cycle, "failed", "there is no feedback to learn from yet")
            return await self._unlearnt(ended, tainted)
        champion, known = ("", frozenset[str]()) if tainted else self._releases.champion()
        train, held = curation.split(examples, settings, self._render, known)
        speed = 0.0 if whole or tainted else plan.speed(await self._journal.cycles())
        planned = plan.make(train, settings, speed=speed, champion=champion, trained=known)
        lineage = [id for e in planned.train for id in (e.id, *e.also)] + sorted(known if planned.partial else ())
        with jobs.folder(self._config.agent.data, cycle.id) as directory:
            await self._write_job(directory, planned, held, champion, known, tune=settings.tune and whole)
            cycle = await self._progress(cycle, examples=len(examples))
            log.info("cycle", id=cycle.id, examples=len(planned.train), held_out=len(held), partial=planned.partial)
            report = replace(
                await self._train(cycle, directory, settings),
                partial=planned.partial,
                new=sum(example.id not in known for example in train) / max(len(train), 1),
            )
            self._partial = planned.partial
            await self._keep(report.tuned)
            ended = await self._judge(
                cycle, directory, report, champion, examples_at=max(e.at for e in examples), lineage=lineage
            )
        return await self._unlearnt(await self._finish(ended, ended.state, ended.reason), tainted)

    async def _unlearnt(self, ended: Cycle, tainted: bool) -> Cycle:
        """Where it was to unlearn something, its report proves that nothing is left of it."""
        proof = await self._unlearning.end(tainted=tainted, released=ended.state in ("released", "provisional"))
        if proof is None:
            return ended
        proven = await self._told(replace(ended, report={**ended.report, "unlearnt": msgspec.to_builtins(proof)}))
        log.info("proven", id=proven.id)
        return proven

    async def _believed(self, words: Sequence[Example], settings: LearnerConfig) -> list[Example]:
        """One example a situation, without what is doubted, and what each counts: where the newest word is doubted, the one
        before it stands."""
        if self._doubts is None:
            return curation.weighed(duplicates.merged(words), settings, lambda source: 1.0)
        believed = await self._doubts.look(words)
        return curation.weighed(duplicates.merged(believed), settings, self._doubts.trust)

    async def recipe(self) -> LearnerConfig:
        """How a cycle would train now."""
        return await self._settings(changed=False)

    async def _settings(self, *, changed: bool) -> LearnerConfig:
        """`[learner]`, with what a search has found better. After a change of habits the past counts for less."""
        settings = self._config.learner
        found = await self._journal.metadata(TUNED) if settings.tune else None
        half_life = settings.half_life / 2 if changed else settings.half_life
        return settings.model_copy(update={**(found or {}), "half_life": half_life})

    async def _keep(self, tuned: dict[str, Any]) -> None:
        """Settings that a search has found better."""
        if tuned:
            found = await self._journal.metadata(TUNED) or {}
            await self._journal.set_metadata(TUNED, {**found, **tuned})

    async def _write_job(
        self, directory: Path, planned: plan.Plan, held: Sequence[Example], champion: str, known: frozenset[str],
        *, tune: bool,
    ) -> None:  # fmt: skip
        """`champion`: the weights that the candidate is compared with, `known`: what they were taught."""
        job = jobs.Job(
            base=await asyncio.to_thread(self._model),
            instruction=self._config.agent.instruction,
            catalogues=self._catalogues.all(),
            champion=champion,
            settings={**planned.settings.model_dump(mode="json"), "tune": tune},
            reply_tokens=self._config.policy.reply_tokens,
            catalogue_tokens=self._config.policy.catalogue_tokens,
            partial=planned.partial,
            cases=self._cases,
            consolidate=self._config.policy.consolidate < 1,
            learnt=tuple(sorted(known)),
            states=str(await self._unlearning.states()),
        )
        believes = self._doubts.believes if self._doubts is not None else evidence.everybody
        logged, reference = await evidence.logged(self._journal, believes), await evidence.situations(self._journal)
        await asyncio.to_thread(jobs.write, directory, job, planned.train, held, logged, reference)

    async def _train(self, cycle: Cycle, directory: Path, settings: LearnerConfig) -> jobs.Report:
        self.process = self.spare or trainer.Trainer(nice=settings.nice, threads=settings.threads)
        self.spare = None
        try:
            return await self._watch(cycle, self.process, directory, settings.timeout)
        finally:
            await self.process.stop()
            self.process = None

    async def _watch(self, cycle: Cycle, process: trainer.Trainer, directory: Path, timeout: float) -> jobs.Report:
        """Start the trainer and pass its progress on until it ends. Raises Unavailable with the reason if it fails."""
        await process.start(directory)
        deadline = time.monotonic() + timeout
        while await process.running(POLL):
            seen = await asyncio.to_thread(jobs.read_progress, directory)
            if seen is not None and seen.progress != (self.current or cycle).progress:
                cycle = await self._progress(self.current or cycle, epoch=seen.epoch, progress=seen.progress)
            if time.monotonic() > deadline:
                raise trainer.gave_up(timeout)
        return await process.report()

    async def _judge(
        self, cycle: Cycle, directory: Path, report: jobs.Report, champion: str, *, examples_at: float, lineage: list[str]
    ) -> Cycle:  # fmt: skip
        """The cycle as it ends. `champion`: what the candidate was compared with. If something else decides by now, the verdict
        is not about that: a trial has to tell."""
        verdict = gate.judge(report, self._config.gate)
        if verdict.state == "released" and champion and champion != self._releases.champion()[0]:
            verdict = gate.Verdict(state="provisional", reason=f"{verdict.reason}; but another version serves by now")
        adapter = await self._releases.publish(
            directory, lineage=lineage, verdict=verdict.reason, trusted=await self._trust(directory, report)
        )
        doubts = self._doubts.report() if self._doubts is not None else {}
        told = msgspec.to_builtins(replace(report, judged=(), learnt=()))
        facts = {**told, **doubts, "habits": cycle.reason, "adapter": adapter}
        cycle = replace(self.current or cycle, adapter=adapter, report=facts)
        if verdict.state == "rejected":
            return replace(cycle, state="rejected", reason=verdict.reason)
        ended = replace(cycle, state=verdict.state, reason=verdict.reason, ended_at=self._clock(), progress=1.0)
        try:
            await self._releases.release(adapter, why="gate", provisional=verdict.state == "provisional", cycle=ended)
        except Corrupt as error:
            return replace(cycle, state="rejected", reason=str(error))
        return replace(
            ended, ended_at=self._clock(), report={**facts, "feedback_to_live_seconds": self._clock() - examples_at}
        )

    async def _trust(self, directory: Path, report: jobs.Report) -> Trust:
        """How far these weights and the memory are to be believed: learnt on what the weights were not trained on, with
        the memory as it will be beside them, but without it."""
        if self._memory is None:
            return trust.ADAPTER
        memory = self._memory
        if memory.consolidates:
            memory = await asyncio.to_thread(memory.consolidated, report.learnt)
        right = {example.id: example.action for example in (await asyncio.to_thread(jobs.read, directory))[2]}
        seen = []
        for judged in report.judged:
            if judged.id in memory:
                seen.append(knowing.seen(judged.actions, judged.log_probs, right[judged.id], judged.id, memory))
            await asyncio.sleep(0)
        return await asyncio.to_thread(knowing.fit, seen)

    def _render(self, scope: str, action: object) -> str:
        return self._catalogues.of(scope).render(action)  # type: ignore[arg-type]

    async def _progress(self, cycle: Cycle, **changes: object) -> Cycle:
        self.current = replace(cycle, **changes)
        return await self._told(self.current)

    async def _finish(self, cycle: Cycle, state: str, reason: str) -> Cycle:
        ended_at = cycle.ended_at or self._clock()
        done = await self._told(replace(cycle, state=state, reason=reason, ended_at=ended_at, progress=1.0))
        self._metrics.cycles.labels(state).inc()
        log.info("cycle ended", id=done.id, state=state, reason=reason)
        return done

    async def _told(self, cycle: Cycle) -> Cycle:
        await self._journal.put(cycle, patient=True)
        await self._bus.publish(cycle)
        return cycle
