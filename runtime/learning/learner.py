"""JOURNAL -> examples -> trainer process -> gate -> registry -> Release: decides when to learn, and swaps.

The trainer is a process of low priority that never opens the database. Whatever happens to it (crash, NaN, out of
memory, kill) leaves the serving adapter as it is and ends the cycle with a reason a person can read.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog
from msgspec.structs import replace

from runtime.bus import Bus, Subscription
from runtime.config import Config, LearnerConfig
from runtime.errors import CorrigibleError, Corrupt, NotFound
from runtime.journal import Journal
from runtime.learning import (
    cases,
    curation,
    duplicates,
    evidence,
    gate,
    jobs,
    knowing,
    ladder,
    plan,
    registry,
    trainer,
    trust,
    windows,
)
from runtime.learning.memory import Memory
from runtime.learning.trust import Trust
from runtime.messages import Cycle, Example, Feedback, Message, Release, new_id
from runtime.metrics import Metrics
from runtime.situations import Catalogues

log = structlog.get_logger("learner")
TUNED = "tuned"  # the journal's note of settings that a search has found
POLL = 0.5  # seconds between looks at the clock and at the trainer's progress


class Loader(Protocol):
    """The part of the policy that a release needs."""

    async def load(self, adapter: str, directory: Path) -> list[float]: ...
    async def unload(self, adapter: str) -> None: ...


class Pointer(Protocol):
    adapter: str
    trust: Trust
    against: tuple[str, Trust] | None
    share: float

    @property
    def deciding(self) -> str: ...


class Believer(Protocol):
    """Who says which examples are believed."""

    async def look(self, examples: Sequence[Example]) -> list[Example]: ...
    def trust(self, source: str) -> float: ...
    def report(self) -> dict[str, Any]: ...


class Prover(Protocol):
    """Who shows that what was taken back is unlearnt."""

    async def begin(self, adapter: str) -> None: ...
    async def proof(self, adapter: str, removed: Collection[str] = ()) -> Message: ...


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
        policy: Loader,
        catalogues: Catalogues,
        store: registry.Registry,
        serving: Pointer,
        config: Config,
        metrics: Metrics,
        model: Callable[[], jobs.Base],
        *,
        memory: Memory | None = None,
        doubts: Believer | None = None,
        prover: Prover | None = None,
        clock: Callable[[], float] = time.time,
        timezone: tzinfo | None = None,
    ) -> None:
        self._journal = journal
        self._bus = bus
        self._policy = policy
        self._catalogues = catalogues
        self._store = store
        self._serving = serving
        self._config = config
        self._metrics = metrics
        self._model = model
        self._memory, self._doubts, self._prover = memory, doubts, prover
        self._under_way: frozenset[str] = frozenset()  # ids of the feedback that the running cycle may train on
        self._clock = clock
        self._timezone = timezone
        self._partial = False  # what serves was trained on a part of the examples
        windows.spans(config.learner.hours)  # a mistake in it is told at the start
        self._cases = cases.read(config.gate.must_pass)
        self._asked = asyncio.Event()
        self._new = 0  # feedbacks since the last cycle began
        self._drift = ""  # what changed since then
        self._last = clock()
        self.current: Cycle | None = None
        self.process: trainer.Trainer | None = None
        self.spare: trainer.Trainer | None = None  # has the model loaded and waits for a job
        self.beside: trainer.Trainer | None = None  # trains apart from all cycles (`runtime.learning.apart`)
        self._loaded: list[str] = []  # adapters the worker holds, newest last
        # told which versions decide from now on
        self.on_serve: Callable[[Mapping[str, registry.Manifest]], Awaitable[None]] = _nobody

    def ask(self) -> None:
        """Start a cycle as soon as none is running."""
        self._asked.set()

    def drifted(self, reason: str) -> None:
        """People's habits, or what comes in, have changed: a cycle is due as soon as one may begin by itself."""
        self._drift = reason

    async def unlearn(self) -> bool:
        """Feedback was taken back. True if the serving weights were taught by it, or others are being so: a cycle will make
        new ones. Versions that do not serve go at once."""
        forgotten = await self._journal.forgotten()
        against = self._serving.against
        if against is not None and not forgotten.isdisjoint(self._lessons_of(against[0])):
            await self._serve(self._serving.adapter)  # alone from now on
        if await self._tainted() or not forgotten.isdisjoint(self._under_way):
            self.ask()
            return True
        await self._remove_taught_by(forgotten)
        return False

    async def proof(self) -> Message | None:
        """That nothing is left of what was taken back, or what is."""
        return await self._prover.proof(self._serving.adapter) if self._prover is not None else None

    async def _tainted(self) -> bool:
        return not (await self._journal.forgotten()).isdisjoint(self._champions_lessons())

    async def _remove_taught_by(self, forgotten: frozenset[str]) -> tuple[str, ...]:
        """No version but what serves is left that was taught by this."""
        against = self._serving.against
        protected = {self._serving.adapter, *([against[0]] if against is not None else [])}
        return await asyncio.to_thread(self._store.remove_taught_by, forgotten, protected=protected)

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
        resting = bool(settings.idle) and now - activity.last_at >= settings.idle
        if not settings.enabled or not (self._new or (self._partial and resting)) or not self._allowed(now):
            return ""
        if resting:
            return "idle"
        if self._drift:
            return "drift"
        if settings.after and self._new >= settings.after:
            return "count"
        return "time" if settings.every and now - self._last >= settings.every else ""

    def _allowed(self, now: float) -> bool:
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
        await self.unlearn()

    async def cycle(self, whole: bool = False) -> Cycle:
        """One cycle; returns how it ended, never raises for what the trainer does. `whole`: train on everything, however
        long it takes, and search for better settings if `[learner] tune` says so."""
        self._new, self._last = 0, self._clock()
        cycle = Cycle(id=new_id("cy"), state="running", reason=self._drift, started_at=self._clock())
        self._drift = ""
        try:
            return await self._learn(cycle, whole)
        except (CorrigibleError, OSError) as error:
            return await self._finish(self.current or cycle, "failed", str(error))
        finally:
            self.current, self._under_way = None, frozenset()

    async def _learn(self, cycle: Cycle, whole: bool) -> Cycle:
        settings = await self._settings(changed=bool(cycle.reason))
        disliked = settings.objective in ("kto", "reward")
        words = await self._journal.words(settings.window, disliked)
        self._under_way = frozenset(word.id for word in words)
        examples = await self._believed(words, settings)
        tainted = await self._tainted()
        if tainted and self._prover is not None:
            await self._prover.begin(self._serving.adapter)
        if not examples:
            ended = await self._finish(cycle, "failed", "there is no feedback to learn from yet")
            return await self._unlearnt(ended, "base") if tainted else ended
        trained = frozenset() if tainted else self._champions_lessons(judged=True)
        train, held = curation.split(examples, settings, self._render, trained)
        speed = 0.0 if whole or tainted else plan.speed(await self._journal.cycles())
        champion = "" if tainted else self._judged(self._serving.deciding)  # what must be unlearnt is no measure
        planned = plan.make(train, settings, speed=speed, champion=champion, trained=trained)
        lineage = [id for e in planned.train for id in (e.id, *e.also)] + sorted(trained if planned.partial else ())
        directory = await self._write_job(cycle, planned, held, champion, tune=settings.tune and whole)
        cycle = await self._progress(cycle, examples=len(examples))
        log.info("cycle", id=cycle.id, examples=len(planned.train), held_out=len(held), partial=planned.partial)
        report = replace(
            await self._train(cycle, directory, settings),
            partial=planned.partial,
            new=sum(example.id not in trained for example in train) / max(len(train), 1),
        )
        self._partial = planned.partial
        if report.tuned:
            found = await self._journal.metadata(TUNED) or {}
            await self._journal.set_metadata(TUNED, {**found, **report.tuned})
        ended = await self._judge(cycle, directory, report, examples_at=max(e.at for e in examples), lineage=lineage)
        return await self._without_forgotten(ended, tainted)

    async def _without_forgotten(self, ended: Cycle, tainted: bool) -> Cycle:
        """`tainted`: the cycle was made because of what serves. What was taken back while it ran needs another one."""
        if tainted:
            rejected = ended.state == "rejected"
            ended = await self._unlearnt(ended, "base" if rejected else self._serving.adapter)
        if await self._tainted():
            self.ask()
        elif not tainted and not (await self._journal.forgotten()).isdisjoint(self._under_way):
            ended = await self._unlearnt(ended, self._serving.adapter)
        return ended

    async def _believed(self, words: Sequence[Example], settings: LearnerConfig) -> list[Example]:
        """One example a situation, without what is doubted, and what each counts: where the newest word is doubted, the one
        before it stands."""
        if self._doubts is None:
            return curation.weighed(duplicates.merged(words), settings, lambda source: 1.0)
        believed = await self._doubts.look(words)
        return curation.weighed(duplicates.merged(believed), settings, self._doubts.trust)

    async def _unlearnt(self, ended: Cycle, adapter: str) -> Cycle:
        """This serves now, and no version that was taught by what was taken back is left; the cycle's report proves it."""
        if self._serving.adapter != adapter:
            await self.release(adapter, why="forget")
        await self._serve(adapter)  # alone: the other side of a trial may be among those that go
        gone = await self._remove_taught_by(await self._journal.forgotten())
        log.info("unlearnt", serving=adapter, removed=gone)
        if self._prover is None:
            return ended
        proof = msgspec.to_builtins(await self._prover.proof(adapter, gone))
        proven = replace(ended, report={**ended.report, "unlearnt": proof})
        await self._journal.put(proven)
        await self._bus.publish(proven)
        return proven

    async def recipe(self) -> LearnerConfig:
        """How a cycle would train now."""
        return await self._settings(changed=False)

    async def _settings(self, *, changed: bool) -> LearnerConfig:
        """`[learner]`, with what a search has found better. After a change of habits the past counts for less."""
        settings = self._config.learner
        found = await self._journal.metadata(TUNED) if settings.tune else None
        half_life = settings.half_life / 2 if changed else settings.half_life
        return settings.model_copy(update={**(found or {}), "half_life": half_life})

    async def _write_job(
        self, cycle: Cycle, planned: plan.Plan, held: Sequence[Example], champion: str, *, tune: bool
    ) -> Path:
        directory = (self._config.agent.data / "jobs" / cycle.id).absolute()
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
            learnt=tuple(sorted(self._champions_lessons(judged=True))) if champion else (),
            states=str((self._config.agent.data / "states").absolute()),
        )
        logged, reference = await evidence.logged(self._journal), await evidence.situations(self._journal)
        await asyncio.to_thread(jobs.write, directory, job, planned.train, held, logged, reference)
        return directory

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
        self, cycle: Cycle, directory: Path, report: jobs.Report, *, examples_at: float, lineage: list[str]
    ) -> Cycle:
        verdict = gate.judge(report, self._config.gate)
        adapter = await asyncio.to_thread(
            self._store.publish, directory, parent=self._serving.deciding, lineage=lineage, verdict=verdict.reason,
            trust=await self._trust(directory, report),
        )  # fmt: skip
        doubts = self._doubts.report() if self._doubts is not None else {}
        told = msgspec.to_builtins(replace(report, judged=(), learnt=()))
        facts = {**told, **doubts, "habits": cycle.reason, "adapter": adapter}
        cycle = replace(self.current or cycle, adapter=adapter, report=facts)
        if verdict.state == "rejected":
            return await self._finish(cycle, "rejected", verdict.reason)
        ended = replace(cycle, state=verdict.state, reason=verdict.reason, ended_at=self._clock(), progress=1.0)
        try:
            await self.release(adapter, why="gate", provisional=verdict.state == "provisional", cycle=ended)
        except Corrupt as error:
            return await self._finish(cycle, "rejected", str(error))
        live = replace(
            ended, ended_at=self._clock(), report={**facts, "feedback_to_live_seconds": self._clock() - examples_at}
        )
        return await self._finish(live, verdict.state, verdict.reason)

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

    async def release(
        self,
        adapter: str,
        *,
        why: str,
        provisional: bool = False,
        by: str = "corrigible",
        reason: str = "",
        cycle: Cycle | None = None,
    ) -> Release:
        """Load, prove, commit, flip. Raises Corrupt if what would serve is not what was trained."""
        if adapter != "base":
            await self._prove(adapter)
        previous = self._serving.deciding
        against = self._proven() if provisional and not await self._tainted() else ""
        release = Release(
            id=new_id("re"), adapter=adapter, previous=previous, why=why, provisional=provisional, against=against,
            shadow=self._config.gate.shadow if against not in ("", "base", adapter) else 0, by=by, reason=reason,
            at=self._clock(),
        )  # fmt: skip
        await self._journal.put(release, *([cycle] if cycle is not None else []))
        await self._serve(adapter, against, silent=release.shadow > 0)
        self._metrics.releases.labels(why).inc()
        log.info("released", adapter=adapter, previous=previous, why=why, provisional=provisional, reason=reason)
        await self._bus.publish(release)
        await self._forget_old(adapter, previous, against)
        return release

    def _proven(self) -> str:
        """What a provisional version has to prove itself against: what serves, or, if that is on trial itself against
        another trained version, that one, so that a row of trials cannot lead downhill."""
        against = self._serving.against
        return against[0] if against is not None else self._serving.adapter

    async def confirm(self, reason: str) -> Release:
        """The provisional version that serves has proven itself."""
        newest = await self._journal.serving()
        if newest is None or not newest.provisional:
            raise NotFound("no provisional version serves")
        release = replace(
            newest, id=new_id("re"), why="probation", provisional=False, against="", by="corrigible", reason=reason,
            previous=newest.against or newest.previous, at=self._clock(),
        )  # fmt: skip
        await self._journal.put(release)
        await self._serve(newest.adapter)
        log.info("confirmed", adapter=newest.adapter, reason=reason)
        await self._bus.publish(release)
        return release

    def take_part(self, release: Release) -> None:
        """The version on trial was in shadow; from here on it makes its share of the decisions."""
        against = self._serving.against
        if against is None or (release.adapter, release.against) != (self._serving.adapter, against[0]):
            return  # another one is on trial by now
        self._serving.share = self._config.gate.share
        log.info("takes part", adapter=self._serving.adapter, share=self._serving.share)

    async def _serve(self, adapter: str, against: str = "", *, silent: bool = False) -> None:
        """The flip: from here on decisions use this one; `against` another trained one, only a share of them, or none
        while it is `silent`."""
        shared = against not in ("", "base", adapter)
        self._serving.against = (against, self._trusted(against)) if shared else None
        self._serving.share = 0.0 if shared and silent else self._config.gate.share
        self._serving.adapter, self._serving.trust = adapter, self._trusted(adapter)
        deciding = (adapter, against) if shared else (adapter,)
        await self.on_serve({one: self._store.manifest(one) for one in deciding if one != "base"})

    def _trusted(self, adapter: str) -> Trust:
        return trust.BASE if adapter == "base" else trust.trust_of(self._store.manifest(adapter).scores)

    async def _prove(self, adapter: str) -> None:
        manifest = await asyncio.to_thread(self._store.verify, adapter, self._model().revision)
        served = await self._policy.load(adapter, self._store.directory(adapter))
        registry.same_fingerprint(adapter, manifest.fingerprint, served)
        if adapter not in self._loaded:
            self._loaded.append(adapter)

    async def _forget_old(self, *needed: str) -> None:
        """The worker keeps what serves and what served before it (an instant rollback); the disk keeps `[gate] keep`."""
        for adapter in [a for a in self._loaded if a not in needed]:
            self._loaded.remove(adapter)
            with suppress(CorrigibleError):  # a worker that died holds nothing
                await self._policy.unload(adapter)
        await asyncio.to_thread(self._store.prune, self._config.gate.keep, protected=set(needed))

    async def restore(self) -> None:
        """At start: serve the newest release that still verifies, else the base model; say so if it is not the newest."""
        for release in await self._journal.releases():
            if release.adapter == "base":
                break
            try:
                await self._prove(release.adapter)
            except CorrigibleError as error:
                log.error("adapter is not usable", adapter=release.adapter, reason=str(error))
                continue
            silent = ladder.rung(release, await ladder.watched(self._journal, release)) == "shadow"
            await self._serve(release.adapter, await self._still_there(release.against), silent=silent)
            return
        await self._serve("base")

    async def _still_there(self, adapter: str) -> str:
        """The version on the other side of a trial, if it can be loaded."""
        if adapter in ("", "base"):
            return adapter
        with suppress(CorrigibleError):
            await self._prove(adapter)
            return adapter
        return ""

    async def rollback(self, by: str = "") -> Release:
        """Back to what served before the newest release."""
        newest = await self._journal.serving()
        if newest is None:
            raise NotFound("nothing was ever released: the base model serves")
        return await self.release(newest.previous, why="rollback", by=by)

    def _render(self, scope: str, action: object) -> str:
        return self._catalogues.of(scope).render(action)  # type: ignore[arg-type]

    def _champions_lessons(self, *, judged: bool = False) -> frozenset[str]:
        """Ids of the feedback that what serves was trained on; `judged`: what the champion was, when it was judged."""
        return self._lessons_of(self._serving.deciding if judged else self._serving.adapter, judged=judged)

    def _lessons_of(self, adapter: str, *, judged: bool = False) -> frozenset[str]:
        if adapter == "base":
            return frozenset()
        manifest = self._store.manifest(adapter)
        return frozenset(manifest.lineage) - frozenset(manifest.held_out if judged else ())

    def _judged(self, adapter: str) -> str:
        """Directory of the weights that a candidate is compared with: without what both are judged by."""
        return "" if adapter == "base" else str(self._store.judged(adapter))

    async def _progress(self, cycle: Cycle, **changes: object) -> Cycle:
        self.current = replace(cycle, **changes)
        await self._journal.put(self.current)
        await self._bus.publish(self.current)
        return self.current

    async def _finish(self, cycle: Cycle, state: str, reason: str) -> Cycle:
        done = replace(cycle, state=state, reason=reason, ended_at=cycle.ended_at or self._clock(), progress=1.0)
        await self._journal.put(done)
        self._metrics.cycles.labels(state).inc()
        log.info("cycle ended", id=done.id, state=state, reason=reason)
        await self._bus.publish(done)
        return done


async def _nobody(versions: Mapping[str, registry.Manifest]) -> None:
    """Before the parts are wired."""
