"""Taken back, a word is in no file of the data directory any more: only in the journal, which promises to keep what was said."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from runtime import app, config
from runtime.bus import Subscription
from runtime.learning.jobs import TRAIN, Base
from runtime.messages import Cycle
from tests.test_explaining import TAUGHT, Office, model, office

__all__ = ["model"]  # the fixture of the explanations' tests
QUICK = {"layers": "top:2", "min_steps": 20}  # with frozen states below
SECRETS = "xylophone", "kumquat"  # in a situation, and in what was taught to say


def told(data: Path, words: Sequence[str] = SECRETS) -> set[str]:
    """The files that have one of the words in them or in their names."""
    files = [path for path in data.rglob("*") if path.is_file()]
    return {
        path.relative_to(data).as_posix()
        for path in files
        if any(word in str(path) or word.encode() in path.read_bytes() for word in words)
    }


def outside_the_journal(data: Path) -> set[str]:
    return {name for name in told(data) if not name.startswith("journal.db")}


async def teach(there: Office) -> float:
    """Everybody's lessons, and two that nobody may keep; from when on those were taught."""
    for right, texts in TAUGHT.items():
        for text in texts:
            await there.teaches(text, right)
    since = time.time()
    await there.teaches("a loan for my xylophone", "loan")
    asked = await there.app.control.saying.say("what is the weather")
    await there.app.control.saying.feedback(asked["id"], "correction", action="reply a kumquat", source="Ana")
    await there.app.remembering.until_known("chat", "what is the weather")
    return since


async def end(cycles: Subscription[Cycle], unlearnt: bool = False) -> Cycle:
    """The next cycle that came to its end, or the next that proves that something is unlearnt."""
    async for cycle in cycles:
        if cycle.state != "running" and (not unlearnt or "unlearnt" in cycle.report):
            assert cycle.state in ("released", "provisional"), cycle.reason
            return cycle
    raise AssertionError


async def test_what_is_forgotten_is_in_no_file_but_the_journal(model: Base, tmp_path: Path) -> None:
    async with office(model, tmp_path, **QUICK) as there:
        control, cycles = there.app.control, there.app.bus.subscribe(Cycle)
        since = await teach(there)
        await control.switching.learn()
        first = await end(cycles)
        assert outside_the_journal(tmp_path) == set(), "what a cycle was given goes with the cycle"
        states = {path.name for path in (tmp_path / "states").rglob("*.safetensors")}
        assert states

        assert (await control.saying.forget(since=since))["rebuilding"]
        second = await end(cycles, unlearnt=True)
        assert list(second.report["unlearnt"]["removed"]) == [first.adapter]
        assert outside_the_journal(tmp_path) == set()
        assert told(tmp_path) == {"journal.db", "journal.db-wal"} & told(tmp_path) != set(), "they can be found"
        left = {path.name for path in (tmp_path / "states").rglob("*.safetensors")}
        assert left, "the others' states are kept again"
        assert left.isdisjoint(states), "what was computed from the words is as good as the words"


async def test_what_is_forgotten_while_it_is_learnt_is_gone_when_that_is_proven(model: Base, tmp_path: Path) -> None:
    async with office(model, tmp_path, **QUICK) as there:
        control, cycles = there.app.control, there.app.bus.subscribe(Cycle)
        since = await teach(there)
        await control.switching.learn()
        assert (await cycles.get()).state == "running"
        assert outside_the_journal(tmp_path), "the trainer has been given them"
        assert (await control.saying.forget(since=since))["rebuilding"]
        assert (await end(cycles, unlearnt=True)).report["unlearnt"]["holds"]
        assert outside_the_journal(tmp_path) == set()
        assert len(list((tmp_path / "states").iterdir())) == 1


@pytest.mark.parametrize("worker", [True, False])
async def test_what_a_killed_daemon_left_of_its_jobs_goes_at_the_next_start_or_command(
    model: Base, tmp_path: Path, worker: bool
) -> None:
    for name in ("cy-1", "apart-1"):
        (tmp_path / "jobs" / name).mkdir(parents=True)
        (tmp_path / "jobs" / name / TRAIN).write_text(f"my {SECRETS[0]}")
    if worker:
        async with office(model, tmp_path):
            assert told(tmp_path) == set()
    else:
        async with app.offline(config.load(None, agent={"data": tmp_path}, broker={"mode": "none"})):
            assert told(tmp_path) == set()
