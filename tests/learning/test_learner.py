"""The learner: whatever becomes of its trainer, what serves stays; and a cycle begins when it is due."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import save_file

from runtime.drifting import Drifting
from runtime.journal import Journal
from runtime.learning import jobs
from runtime.learning.memory import Lesson, Memory
from runtime.messages import Cycle, Decision, Feedback, Forgotten
from runtime.metrics import Metrics
from tests.learning.cycles import BASE, NOON, SAFETY, a_report, parts, teach
from tests.stages import BRIGHT, DIM, decision, percept

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


async def test_what_the_gate_rejects_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0, recall=0.1)
        ended = await p.cycle()
        assert (ended.state, ended.adapter != "") == ("rejected", True)
        assert await p.untouched()
        assert p.worker.loaded == []


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
        _, train, held = p.given(ended)
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


async def test_too_many_for_the_budget_go_on_from_what_serves_until_there_is_time_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = jobs.Scores(accuracy=1.0, recall=1.0)
    good = replace(a_report(), holdout=50, wins=30, candidate=scored, examples_per_second=0.1)
    async with parts(tmp_path, monkeypatch, budget=10.0) as p:
        p.trainer_makes(1.0, report=msgspec.json.encode(good))
        first = await p.cycle()
        assert (first.state, p.given(first)[0].partial) == ("released", False)
        await teach(p.journal, 3)
        p.trainer_makes(2.0, report=msgspec.json.encode(good))
        second = await p.cycle()
        job = p.given(second)[0]
        assert (second.state, job.partial) == ("provisional", True)
        assert "trained on a part" in second.reason
        assert job.settings["start"] == job.champion == str(p.store.directory(first.adapter))
        assert set(p.store.manifest(second.adapter).lineage) == {"fb-0", "fb-1", "fb-2", "fb-3"}
    async with parts(tmp_path, monkeypatch, taught=0, budget=10.0, idle=1.0) as p:  # after a restart
        await p.releases.restore()
        await p.learner._close_interrupted()
        assert p.learner._due(SimpleNamespace(last_at=0.0)) == "idle", "nothing new, but a whole cycle is owed"
        p.trainer_makes(3.0, report=msgspec.json.encode(good))
        third = await p.learner.cycle(whole=True)
        assert (third.state, p.given(third)[0].partial) == ("released", False)
        assert p.learner._due(SimpleNamespace(last_at=0.0)) == ""


async def test_what_was_held_out_stays_held_out_though_what_serves_has_learnt_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, taught=12, holdout=0.4) as p:
        p.trainer_makes(1.0, report=msgspec.json.encode(replace(a_report(), refit=True)))
        save_file({"lora": np.array([0.5], dtype=np.float32)}, p.judged_weights)
        first = await p.cycle()
        held = {e.id for e in p.given(first)[2]}
        assert held
        manifest = p.store.manifest(first.adapter)
        assert (set(manifest.held_out), len(manifest.lineage)) == (held, 12)
        second = await p.cycle()
        assert {e.id for e in p.given(second)[2]} == held
        assert (
            p.given(second)[0].champion == str(p.store.judged(first.adapter)) != str(p.store.directory(first.adapter))
        )
        await p.journal.put(Forgotten(id="fg-1", feedback_id=min(held), by="person", at=200.0))
        assert await p.unlearning.unlearn(), "held out or not, it is in the weights"


async def test_what_a_search_finds_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = msgspec.json.encode(replace(a_report(), tuned={"lr": 0.004, "rank": 8}))
    async with parts(tmp_path, monkeypatch, tune=True) as p:
        p.trainer_makes(1.0, report=found)
        asked = await p.cycle()
        assert not p.given(asked)[0].settings["tune"], "somebody waits for it"
        idle = await p.learner.cycle(whole=True)
        settings = p.given(idle)[0].settings
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
            train, held = p.given(ended)[1:]
            assert len(train) + len(held) == count, objective


async def test_words_that_say_the_same_are_all_in_the_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch, holdout=0) as p:
        again = replace(await teach(p.journal, 7), id="fb-8", decision_id="dc-8")
        await p.journal.put(percept(8, "Situation 7!"), decision(8, BRIGHT, 8.0), again)
        p.trainer_makes(1.0)
        ended = await p.cycle()
        assert {"fb-7", "fb-8"} <= set(p.store.manifest(ended.adapter).lineage)
        job, train, _ = p.given(ended)
        assert [(e.id, e.also, e.weight) for e in train if e.also] == [("fb-8", ("fb-7",), 2.0)]
        assert job.learnt == ()
        p.trainer_makes(2.0)
        ended = await p.cycle()
        assert {"fb-7", "fb-8"} <= set(p.given(ended)[0].learnt), "anchors from here on"


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
