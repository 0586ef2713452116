"""The learner: whatever becomes of its trainer, what serves stays; a release is one commit, proven before it serves."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import save_file

from runtime import config
from runtime.bus import Bus
from runtime.decision import Serving
from runtime.doubting import Doubts
from runtime.drifting import Drifting
from runtime.errors import NotFound, Unavailable
from runtime.journal import Journal
from runtime.learning import jobs, learner, registry, trainer
from runtime.learning.learner import Learner
from runtime.learning.memory import Lesson, Memory
from runtime.messages import Action, Cycle, Decision, Feedback, Forgotten, Message, Release
from runtime.metrics import Metrics
from runtime.situations import Catalogues
from tests.stages import BRIGHT, DIM, LAMP, decision, percept

FINGERPRINT = (-0.5, -1.5)
OFF = Action(tool="lamp", arguments={"level": "off"})
NOON = 12 * 3600.0
BASE = jobs.Base(directory="nowhere", revision="r1", dtype="float32")
SAFETY = 20.0  # seconds after which a test that hangs is ended


@dataclass
class Worker:
    """Answers the probes as told."""

    fingerprint: Sequence[float] = FINGERPRINT
    loaded: list[str] = field(default_factory=list)

    async def load(self, adapter: str, directory: Path) -> list[float]:
        self.loaded.append(adapter)
        return list(self.fingerprint)

    async def unload(self, adapter: str) -> None:
        self.loaded.remove(adapter)


@dataclass
class Parts:
    learner: Learner
    journal: Journal
    bus: Bus
    worker: Worker
    serving: Serving
    store: registry.Registry
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def trainer(self, script: str) -> None:
        """Let this shell script stand in for `python -m runtime.learning.train JOB` (the job is $3)."""
        program = self.folder / "trainer.sh"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        self.monkeypatch.setattr(trainer, "sys", SimpleNamespace(executable=str(program)))

    def trainer_makes(self, *weights: float, recall: float = 1.0, report: bytes = b"") -> None:
        """Let the trainer finish with this adapter."""
        made = self.folder / "made"
        (made / "adapter").mkdir(parents=True, exist_ok=True)
        save_file({"lora": np.array(weights, dtype=np.float32)}, str(made / "adapter" / registry.WEIGHTS))
        (made / "adapter" / registry.CONFIG).write_text("{}")
        (made / "report.json").write_bytes(report or msgspec.json.encode(a_report(recall)))
        self.trainer(f'cp -r "{made}/." "$3/"')

    @property
    def judged_weights(self) -> Path:
        """Of the adapter before it learnt what was held out."""
        made = self.folder / "made" / jobs.JUDGED
        made.mkdir()
        (made / registry.CONFIG).write_text("{}")
        return made / registry.WEIGHTS

    async def cycle(self) -> Cycle:
        async with asyncio.timeout(SAFETY):
            ended = await self.learner.cycle()
        assert msgspec.to_builtins(await self.journal.cycle(ended.id)) == msgspec.json.decode(
            msgspec.json.encode(ended)
        )
        return ended

    async def untouched(self) -> bool:
        return self.serving.adapter == "base" and await self.journal.serving() is None


def a_report(recall: float = 1.0) -> jobs.Report:
    return jobs.Report(
        examples=3, holdout=0, seconds=1.0, examples_per_second=3.0, epochs=1.0, early_stopped=False, wins=0, losses=0,
        candidate=jobs.Scores(recall=recall), champion=jobs.Scores(), fingerprint=FINGERPRINT,
    )  # fmt: skip


async def teach(journal: Journal, number: int) -> Feedback:
    said = percept(number, f"situation {number}")
    made: Decision = decision(number, BRIGHT, float(number))
    feedback = Feedback(
        id=f"fb-{number}", decision_id=made.id, kind="correction", source="Ana", at=1.0 + number, action=DIM
    )
    await journal.put(said, made, feedback)
    return feedback


@asynccontextmanager
async def parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taught: int = 3, shadow: int = 0, **settings: Any
) -> AsyncIterator[Parts]:
    monkeypatch.setattr(learner, "POLL", 0.01)
    read = config.load(None, agent={"data": tmp_path}, learner=settings, gate={"shadow": shadow})
    async with Journal.open(tmp_path / "j.db") as journal:
        for number in range(taught):
            await teach(journal, number)
        bus, worker, serving, store = Bus(), Worker(), Serving("base"), registry.Registry(tmp_path / "adapters")
        stage = Learner(
            journal, bus, worker, Catalogues([{"room": (LAMP,)}]), store, serving, read, Metrics(), lambda: BASE,
            clock=lambda: 100.0,
        )  # fmt: skip
        yield Parts(stage, journal, bus, worker, serving, store, tmp_path, monkeypatch)


FAULTS = {
    "a crash": ("echo 'ValueError: the loss is not finite' >&2; exit 3", "the loss is not finite"),
    "a silent crash": ("exit 1", "it said nothing"),
    "kill -9": ("kill -9 $$", "SIGKILL"),
    "no report": ("exit 0", "left no report"),
    "half a report": ("echo '{\"examples\": 3' > \"$3/report.json\"", "report.json cannot be read"),
    "a report without an adapter": ("cp \"$(dirname $0)/report.json\" \"$3/\"", "holds no finished adapter"),
    "progress nobody can read": ("echo nan > \"$3/progress.json\"; exec sleep 60", "progress.json cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "why"), FAULTS.values(), ids=list(FAULTS))
async def test_a_trainer_that_fails_leaves_what_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    (tmp_path / "report.json").write_bytes(msgspec.json.encode(a_report()))
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer(script)
        ended = await p.cycle()
        assert (ended.state, why in ended.reason) == ("failed", True), ended.reason
        assert await p.untouched()
        assert p.learner.process is None
        assert p.learner.current is None


async def test_a_trainer_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch, timeout=0.05) as p:
        p.trainer('echo $$ > "$(dirname $0)/pid"; exec sleep 60')
        ended = await p.cycle()
        assert ended.state == "failed"
        assert "took longer" in ended.reason
        assert await p.untouched()
        if (tmp_path / "pid").exists():  # it may have been ended before it could write
            with pytest.raises(ProcessLookupError):
                os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("number", [b"1e999", b"null", b"NaN"])
async def test_scores_that_are_no_numbers_release_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: bytes
) -> None:
    report = msgspec.json.encode(a_report()).replace(b'"log_loss":0.0', b'"log_loss":' + number)
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0, report=report)
        assert (await p.cycle()).state in ("failed", "rejected")
        assert await p.untouched()


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
async def test_weights_that_are_no_numbers_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0, weight)
        ended = await p.cycle()
        assert (ended.state, "not finite" in ended.reason) == ("rejected", True)
        assert await p.untouched()
        assert p.worker.loaded == []


async def test_a_release_is_one_commit_and_flips_the_pointer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        puts: list[tuple[Message, ...]] = []
        put = p.journal.put

        async def recording(*messages: Message) -> int:
            puts.append(messages)
            if any(isinstance(message, Release) for message in messages):
                assert p.serving.adapter == "base", "it served before the journal said so"
            return await put(*messages)

        monkeypatch.setattr(p.journal, "put", recording)
        ended = await p.cycle()
        release = await p.journal.serving()
        assert release is not None
        assert (ended.state, ended.adapter, release.adapter, release.previous) == (
            "provisional", p.serving.adapter, p.serving.adapter, "base",
        )  # fmt: skip
        assert release.provisional
        (together,) = [messages for messages in puts if any(isinstance(m, Release) for m in messages)]
        assert [m.state for m in together if isinstance(m, Cycle)] == ["provisional"]
        assert set(p.store.manifest(release.adapter).lineage) == {"fb-0", "fb-1", "fb-2"}


async def test_a_release_that_is_not_committed_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        put = p.journal.put

        async def full_disk(*messages: Message) -> int:
            if any(isinstance(message, Release) for message in messages):
                raise Unavailable("the disk is full")
            return await put(*messages)

        monkeypatch.setattr(p.journal, "put", full_disk)
        ended = await p.cycle()
        assert (ended.state, ended.reason) == ("failed", "the disk is full")
        assert await p.untouched()


async def test_what_the_gate_rejects_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0, recall=0.1)
        ended = await p.cycle()
        assert (ended.state, ended.adapter != "") == ("rejected", True)
        assert await p.untouched()
        assert p.worker.loaded == []


@pytest.mark.parametrize("answered", [(-0.5, -1.6), (-0.5,), (float("nan"), -1.5)])
async def test_other_answers_to_the_probes_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: tuple[float, ...]
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        p.worker.fingerprint = answered
        ended = await p.cycle()
        assert (ended.state, "does not answer the probes" in ended.reason) == ("rejected", True)
        assert await p.untouched()


async def test_without_feedback_there_is_nothing_to_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p, Journal.open(tmp_path / "empty.db") as empty:
        monkeypatch.setattr(p.learner, "_journal", empty)
        ended = await p.learner.cycle()
        assert (ended.state, ended.reason) == ("failed", "there is no feedback to learn from yet")


async def test_a_cycle_cut_off_by_a_restart_is_closed_and_enough_feedback_starts_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, after=4) as p:
        await p.journal.put(Cycle(id="cy-old", state="running", started_at=1.0))
        p.trainer_makes(1.0)
        cycles, feedbacks = p.bus.subscribe(Cycle), p.bus.subscribe(Feedback)
        running = asyncio.create_task(p.learner.run(feedbacks, SimpleNamespace(last_at=0.0)))
        async with asyncio.timeout(SAFETY):
            closed = await cycles.get()
            assert (closed.id, closed.state) == ("cy-old", "failed")
            assert "restart" in closed.reason
            assert p.learner.current is None, "three feedbacks are waiting, four start a cycle"
            await p.bus.publish(await teach(p.journal, 3))
            while (seen := await cycles.get()).state == "running":
                pass
        assert (seen.state, seen.examples) == ("provisional", 4)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_change_of_what_people_say_starts_a_cycle_before_count_and_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, taught=0, after=0, every=0, half_life=8) as p:
        p.trainer_makes(1.0)
        cycles = p.bus.subscribe(Cycle)
        stage = Drifting(p.journal, p.learner, Metrics(), clock=lambda: 90.0)
        tasks = [
            asyncio.create_task(stage.run(p.bus.subscribe(Decision, Feedback))),
            asyncio.create_task(p.learner.run(p.bus.subscribe(Feedback), SimpleNamespace(last_at=0.0))),
        ]
        for number in range(60):
            await p.journal.put(percept(number, f"situation {number}"), decision(number, BRIGHT, float(number)))
        for number in range(60, 80):
            await p.bus.publish(await teach(p.journal, number))
        async with asyncio.timeout(SAFETY):
            began = await cycles.get()
            while (ended := await cycles.get()).state == "running":
                pass
        assert began.reason.startswith("what people say changed: 100 % of the last ")
        assert (ended.state, ended.report["habits"]) == ("provisional", began.reason)
        _, train, held, *_ = jobs.read(p.folder / "jobs" / ended.id)
        weights = sorted(example.weight for example in (*train, *held))
        assert weights[-5] == pytest.approx(0.5 * weights[-1]), "half the half-life: four examples, not eight"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("settings", [{"hours": "22:00-06:00"}, {"enabled": False}])
async def test_a_change_respects_what_the_learner_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    async with parts(tmp_path, monkeypatch, after=0, every=0, **settings) as p:
        monkeypatch.setattr(p.learner, "_clock", lambda: NOON)
        monkeypatch.setattr(p.learner, "_timezone", UTC)
        p.learner._new = 1
        p.learner.drifted("what people say changed")
        assert p.learner._due(SimpleNamespace(last_at=0.0)) == ""


async def test_rollback_and_restart_serve_what_the_journal_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        with pytest.raises(NotFound):
            await p.learner.rollback()
        p.trainer_makes(1.0)
        first = (await p.cycle()).adapter
        p.trainer_makes(2.0)
        second = (await p.cycle()).adapter
        assert p.serving.adapter == second != first
        assert (await p.learner.rollback(by="Ana")).adapter == first == p.serving.adapter
        p.serving.adapter = "base"
        await p.learner.restore()
        assert p.serving.adapter == first
        (p.store.directory(first) / registry.WEIGHTS).write_bytes(b"changed on disk")
        await p.learner.restore()
        assert p.serving.adapter == second, "the newest one that still verifies"


def written_job(p: Parts, cycle: Cycle) -> jobs.Job:
    return jobs.read(p.folder / "jobs" / cycle.id)[0]


async def test_too_many_for_the_budget_go_on_from_what_serves_until_there_is_time_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = jobs.Scores(accuracy=1.0, recall=1.0)
    good = replace(a_report(), holdout=50, wins=30, candidate=scored, examples_per_second=0.1)
    async with parts(tmp_path, monkeypatch, budget=10.0) as p:
        p.trainer_makes(1.0, report=msgspec.json.encode(good))
        first = await p.cycle()
        assert (first.state, written_job(p, first).partial) == ("released", False)
        await teach(p.journal, 3)
        p.trainer_makes(2.0, report=msgspec.json.encode(good))
        second = await p.cycle()
        job = written_job(p, second)
        assert (second.state, job.partial) == ("provisional", True)
        assert "trained on a part" in second.reason
        assert job.settings["start"] == job.champion == str(p.store.directory(first.adapter))
        assert set(p.store.manifest(second.adapter).lineage) == {"fb-0", "fb-1", "fb-2", "fb-3"}
    async with parts(tmp_path, monkeypatch, taught=0, budget=10.0, idle=1.0) as p:  # after a restart
        await p.learner.restore()
        await p.learner._close_interrupted()
        assert p.learner._due(SimpleNamespace(last_at=0.0)) == "idle", "nothing new, but a whole cycle is owed"
        p.trainer_makes(3.0, report=msgspec.json.encode(good))
        third = await p.learner.cycle(whole=True)
        assert (third.state, written_job(p, third).partial) == ("released", False)
        assert p.learner._due(SimpleNamespace(last_at=0.0)) == ""


async def test_what_was_held_out_stays_held_out_though_what_serves_has_learnt_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, taught=12, holdout=0.4) as p:
        p.trainer_makes(1.0, report=msgspec.json.encode(replace(a_report(), refit=True)))
        save_file({"lora": np.array([0.5], dtype=np.float32)}, p.judged_weights)
        first = await p.cycle()
        held = {e.id for e in jobs.read(p.folder / "jobs" / first.id)[2]}
        assert held
        manifest = p.store.manifest(first.adapter)
        assert (set(manifest.held_out), len(manifest.lineage)) == (held, 12)
        second = await p.cycle()
        assert {e.id for e in jobs.read(p.folder / "jobs" / second.id)[2]} == held
        assert (
            written_job(p, second).champion
            == str(p.store.judged(first.adapter))
            != str(p.store.directory(first.adapter))
        )
        await p.journal.put(Forgotten(id="fg-1", feedback_id=min(held), by="person", at=200.0))
        assert await p.learner.unlearn(), "held out or not, it is in the weights"


async def test_what_a_search_finds_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = msgspec.json.encode(replace(a_report(), tuned={"lr": 0.004, "rank": 8}))
    async with parts(tmp_path, monkeypatch, tune=True) as p:
        p.trainer_makes(1.0, report=found)
        asked = await p.cycle()
        assert not written_job(p, asked).settings["tune"], "somebody waits for it"
        idle = await p.learner.cycle(whole=True)
        settings = written_job(p, idle).settings
        assert (settings["tune"], settings["lr"], settings["rank"]) == (True, 0.004, 8)


async def test_closed_hours_and_a_busy_machine_let_no_cycle_start_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for settings in ({"hours": "22:00-06:00"}, {"max_load": 0.001}):
        (folder := tmp_path / next(iter(settings))).mkdir()
        async with parts(folder, monkeypatch, after=1, **settings) as p:
            monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 1.0, 1.0))
            monkeypatch.setattr(p.learner, "_clock", lambda: NOON)
            monkeypatch.setattr(p.learner, "_timezone", UTC)
            p.learner._new = 5
            assert p.learner._due(SimpleNamespace(last_at=NOON)) == ""
            monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
            monkeypatch.setattr(p.learner, "_clock", lambda: NOON + 12 * 3600)
            assert p.learner._due(SimpleNamespace(last_at=NOON)) == "count"


async def test_disliked_answers_reach_the_objectives_that_want_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for objective, count in (("candidates", 3), ("reward", 4), ("kto", 4)):
        (folder := tmp_path / objective).mkdir()
        async with parts(folder, monkeypatch, objective=objective) as p:
            said = percept(9, "situation 9")
            made = decision(9, BRIGHT, 9.0)
            bad = Feedback(id="fb-9", decision_id=made.id, kind="rating", source="Ana", at=10.0, rating=-1.0)
            await p.journal.put(said, made, bad)
            p.trainer_makes(1.0)
            ended = await p.cycle()
            train, held = jobs.read(p.folder / "jobs" / ended.id)[1:]
            assert len(train) + len(held) == count, objective


async def test_what_is_taken_back_is_unlearnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        first = (await p.cycle()).adapter
        assert p.serving.adapter == first
        assert not await p.learner.unlearn()
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        assert await p.learner.unlearn()
        p.trainer_makes(2.0)
        second = await p.cycle()
        assert p.serving.adapter == second.adapter != first
        assert "fb-1" not in p.store.manifest(second.adapter).lineage
        with pytest.raises(NotFound):
            p.store.manifest(first)
        assert not await p.learner.unlearn()


async def test_with_nothing_left_to_learn_from_the_base_model_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, taught=1) as p:
        p.trainer_makes(1.0)
        first = (await p.cycle()).adapter
        await p.journal.put(Forgotten(id="fg-0", feedback_id="fb-0", by="person", at=9.0))
        assert (await p.cycle()).state == "failed"
        assert p.serving.adapter == "base"
        newest = await p.journal.serving()
        assert newest is not None
        assert (newest.adapter, newest.why) == ("base", "forget")
        with pytest.raises(NotFound):
            p.store.manifest(first)


async def test_a_bad_rebuild_does_not_keep_what_must_be_unlearnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        await p.cycle()
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        p.trainer_makes(2.0, recall=0.0)
        assert (await p.cycle()).state == "rejected"
        assert p.serving.adapter == "base"


@dataclass
class Prover:
    """Keeps what it is told."""

    asked: list[str] = field(default_factory=list)

    async def begin(self, adapter: str) -> None:
        self.asked.append(adapter)

    async def proof(self, adapter: str, removed: Collection[str] = ()) -> Message:
        return Forgotten(id=adapter, feedback_id=" ".join(removed), by="prover", at=1.0)


async def test_the_cycle_that_unlearns_carries_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        prover = p.learner._prover = Prover()
        p.trainer_makes(1.0)
        first = await p.cycle()
        assert "unlearnt" not in first.report
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        p.trainer_makes(2.0)
        second = await p.cycle()
        assert prover.asked == [first.adapter], "what served is asked before it goes"
        assert (second.report["unlearnt"]["id"], second.report["unlearnt"]["feedback_id"]) == (
            second.adapter, first.adapter
        )  # fmt: skip


async def test_what_is_taken_back_while_it_is_learnt_is_unlearnt_by_the_next_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        judged = p.learner._train

        async def taken_back_meanwhile(cycle: Cycle, *rest: Any) -> jobs.Report:
            await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
            assert await p.learner.unlearn(), "a cycle that may learn it runs"
            p.learner._asked.clear()
            return await judged(cycle, *rest)

        monkeypatch.setattr(p.learner, "_train", taken_back_meanwhile)
        first = await p.cycle()
        assert p.learner._asked.is_set()
        monkeypatch.setattr(p.learner, "_train", judged)
        p.trainer_makes(2.0)
        second = await p.cycle()
        assert [m.id for m in p.store.list()] == [second.adapter] != [first.adapter]
        assert "fb-1" not in p.store.manifest(second.adapter).lineage


async def test_a_version_that_does_not_serve_goes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        await p.cycle()
        await p.learner.rollback()
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        assert not await p.learner.unlearn()
        assert p.store.list() == []


async def test_words_that_say_the_same_are_all_in_the_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch, holdout=0) as p:
        again = replace(await teach(p.journal, 7), id="fb-8", decision_id="dc-8")
        await p.journal.put(percept(8, "Situation 7!"), decision(8, BRIGHT, 8.0), again)
        p.trainer_makes(1.0)
        ended = await p.cycle()
        assert {"fb-7", "fb-8"} <= set(p.store.manifest(ended.adapter).lineage)
        job, train, _ = jobs.read(p.folder / "jobs" / ended.id)
        assert [(e.id, e.also, e.weight) for e in train if e.also] == [("fb-8", ("fb-7",), 2.0)]
        assert job.learnt == ()
        p.trainer_makes(2.0)
        ended = await p.cycle()
        assert {"fb-7", "fb-8"} <= set(jobs.read(p.folder / "jobs" / ended.id)[0].learnt), "anchors from here on"


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_that_was_forgotten_or_is_doubted_gets_into_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    async with parts(tmp_path, monkeypatch) as p:
        doubts = p.learner._doubts = Doubts(p.journal, None, lambda scope, action: action.tool)
        for number in range(10, 40):
            source = draw.choice(["Ana", "Ben", "Cem", "page"])
            said = replace(await teach(p.journal, number), id=f"fb-1{number}", source=source, action=OFF)
            await p.journal.put(*([said] if draw.random() < 0.5 else []))  # some contradict Ana on the same decision
        standing = await p.journal.standing()
        taken = draw.sample(standing, 8)
        await p.journal.put(*(Forgotten(id=f"fg-{id}", feedback_id=id, by="person", at=99.0) for id in taken))
        p.trainer_makes(1.0)
        ended = await p.cycle()
        _, train, held = jobs.read(p.folder / "jobs" / ended.id)
        learnt = {id for e in (*train, *held) for id in (e.id, *e.also)}
        doubted = {one.feedback_id for one in doubts.found.doubted}
        assert doubted
        assert learnt.isdisjoint(taken)
        assert learnt.isdisjoint(doubted)
        assert learnt | doubted | set(taken) >= {e.id for e in await p.journal.examples(99)}


async def released(p: Parts, number: int, *, provisional: bool = False) -> str:
    """A further version that serves."""
    p.trainer_makes(float(number))
    await teach(p.journal, 100 + number)
    ended = await p.cycle()
    if not provisional:
        await p.learner.confirm("for the test")
    return ended.adapter


async def test_a_provisional_version_shares_the_decisions_with_the_one_before_it_until_it_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        first = await released(p, 1, provisional=True)
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first}  # the base model was never taught
        await p.learner.confirm("proven")
        second = await released(p, 2, provisional=True)
        served = [p.serving.choose(f"pc-{n}")[0] for n in range(64)]
        assert set(served) == {first, second}
        assert served == [p.serving.choose(f"pc-{n}")[0] for n in range(64)]
        third = await released(p, 3, provisional=True)  # while the second is on trial
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first, third}
        await p.learner.restore()  # as after a restart
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first, third}
        release = await p.learner.confirm("proven")
        assert (release.adapter, release.previous, release.provisional, release.reason) == (
            third,
            first,
            False,
            "proven",
        )
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {third}


async def test_in_shadow_a_version_is_no_measure_and_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, shadow=5) as p:
        first = await released(p, 1)
        second = await released(p, 2, provisional=True)
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first}
        await teach(p.journal, 103)
        p.trainer_makes(3.0)
        third = await p.cycle()  # while the second is watched
        assert written_job(p, third).champion == str(p.store.directory(first))
        assert p.store.manifest(third.adapter).parent == first
        newest = await p.journal.serving()
        assert newest is not None
        assert (newest.previous, newest.against, newest.shadow) == (first, first, 5)
        await p.learner.restore()  # as after a restart
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first}
        p.learner.take_part(replace(newest, adapter=second))
        assert p.serving.share == 0.0, "that one is not on trial any more"
        p.learner.take_part(newest)
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first, third.adapter}
        assert (await p.learner.rollback(by="Ana")).adapter == first


async def test_only_a_provisional_version_can_be_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        with pytest.raises(NotFound):
            await p.learner.confirm("nothing was released")
        await released(p, 1)
        with pytest.raises(NotFound):
            await p.learner.confirm("it is full already")


async def test_the_other_side_of_a_trial_ends_when_what_taught_it_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        await released(p, 1)
        second = await released(p, 2, provisional=True)
        assert p.serving.against is not None
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-0", by="person", at=1.0))
        await p.learner.unlearn()
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {second}


async def test_a_candidate_that_breaks_a_case_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        broken = replace(a_report(), broken=("room: 'dark' -> lamp off, which is forbidden",))
        p.trainer_makes(1.0, report=msgspec.json.encode(broken))
        ended = await p.cycle()
        assert ended.state == "rejected"
        assert "lamp off, which is forbidden" in ended.reason
        assert await p.untouched()


async def test_what_it_knows_of_its_knowing_is_learnt_from_what_was_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, taught=12) as p:
        p.learner._memory = memory = Memory()
        for number in range(12):
            feature = np.eye(12, dtype=np.float32)[number]
            memory.remember(Lesson(f"fb-{number}", "room", f"situation {number}", (DIM, BRIGHT)[number % 2]), feature)
        judged = [
            jobs.Judgement(id=f"fb-{number}", actions=(DIM, BRIGHT), log_probs=(-0.1, -2.35)) for number in range(12)
        ]
        directory = tmp_path / "job"
        held = await p.journal.examples(12)
        jobs.write(directory, jobs.Job(base=BASE, instruction="", catalogues={}), [], held)
        found = await p.learner._trust(directory, replace(a_report(), judged=tuple(judged)))
        assert len(found.knowing.missed) == len(found.knowing.missed_alone) == 12
        assert found.knowing != type(found.knowing)()
        assert msgspec.convert(msgspec.to_builtins(found), type(found)) == found


async def test_the_memory_is_told_which_versions_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through release, trial, proof, rollback and restart: their manifests say what they were taught and are sure of."""
    told: list[dict[str, tuple[str, ...]]] = []

    async def on_serve(versions: Mapping[str, registry.Manifest]) -> None:
        told.append({version: manifest.learnt for version, manifest in versions.items()})

    async with parts(tmp_path, monkeypatch) as p:
        p.learner.on_serve = on_serve
        p.trainer_makes(1.0, report=msgspec.json.encode(replace(a_report(), learnt=("fb-0",))))
        first = (await p.cycle()).adapter
        assert told == [{first: ("fb-0",)}]
        await p.learner.confirm("proven")
        second = await released(p, 2, provisional=True)
        assert told[-1] == {first: ("fb-0",), second: ()}  # both decide: it is on trial
        await p.learner.confirm("proven")
        assert told[-1] == {second: ()}
        await p.learner.rollback()
        assert told[-1] == {first: ("fb-0",)}
        await p.learner.restore()
        assert told[-1] == {first: ("fb-0",)}
        await p.learner.release("base", why="promote")
        assert told[-1] == {}
