"""The trainer as a child process: kept ready, stopped while a decision is made, gone with whoever wanted it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from runtime.learning import jobs, trainer
from runtime.learning.jobs import Base
from runtime.learning.trainer import SHARE, SPAN, Pauses, Trainer
from tests.learning.test_train import job_directory, report

SAFETY = 120.0  # seconds after which a test that hangs is ended
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def state(pid: int) -> str:
    """R, S, T (stopped), Z ..., or nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SAFETY):
        while not true():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def ready(model: Base) -> AsyncIterator[Trainer]:
    one = Trainer(nice=5, threads=1)
    await one.ready(model)
    yield one
    await one.stop()


async def test_one_that_is_ready_trains_the_job_it_gets(model: Base, tmp_path: Path, ready: Trainer) -> None:
    pid = ready.pid
    directory = job_directory(tmp_path / "job", model, min_steps=3)
    await ready.start(directory)
    assert not await ready.running(SAFETY)
    assert ready.pid == pid
    assert await ready.report() == report(directory)
    assert "step" in (directory / jobs.OUTPUT).read_text()


async def test_one_that_died_while_it_waited_is_started_anew(model: Base, tmp_path: Path, ready: Trainer) -> None:
    assert ready.pid is not None
    os.kill(ready.pid, signal.SIGKILL)
    assert not await ready.running(SAFETY)
    await ready.start(job_directory(tmp_path / "job", model, min_steps=3))
    assert not await ready.running(SAFETY)
    assert (await ready.report()).examples


async def test_one_that_nobody_needed_ends_in_peace(model: Base) -> None:
    one = Trainer(nice=0, threads=1)
    await one.ready(model)
    assert one.pid is not None
    await one.stop()
    assert state(one.pid) in ("", "Z")


@LINUX
async def test_it_is_of_low_priority_and_the_first_to_go(ready: Trainer) -> None:
    assert ready.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, ready.pid) == 5
    assert Path(f"/proc/{ready.pid}/oom_score_adj").read_text().strip() == "900"


@LINUX
async def test_it_stands_still_while_a_decision_is_made(ready: Trainer) -> None:
    pid = ready.pid
    assert pid is not None
    ready.yield_to(True)
    await until(lambda: state(pid) == "T")
    ready.yield_to(False)
    await until(lambda: state(pid) in ("R", "S", "D"))


@LINUX
async def test_a_decision_without_end_does_not_hold_it_up(ready: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "LONGEST", 0.05)
    pid = ready.pid
    assert pid is not None
    ready.yield_to(True)
    await until(lambda: state(pid) in ("R", "S", "D"))


@LINUX
async def test_one_that_stands_still_can_be_ended(model: Base) -> None:
    one = Trainer(nice=0, threads=1)
    await one.ready(model)
    one.yield_to(True)
    await one.stop()
    assert one.pid is not None
    assert state(one.pid) in ("", "Z")


def test_it_stands_still_for_a_share_of_the_time_only() -> None:
    pauses, still, now = Pauses(), 0.0, 0.0
    while now < SPAN:  # decisions without a gap
        if pauses.begin(now):
            still += 0.5
        now += 0.5
        pauses.end(now)
    assert still == pytest.approx(SPAN * SHARE, abs=0.5)
    assert pauses.begin(now), "a new span begins"


@LINUX
def test_it_goes_with_the_daemon_even_while_it_stands_still(model: Base) -> None:
    """kill -9 of the parent while the trainer is stopped."""
    command = [sys.executable, "-c", DAEMON, model.directory, model.revision, model.dtype]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        pid = int(daemon.stdout.readline())
        asyncio.run(until(lambda: state(pid) == "T"))
        daemon.kill()
    asyncio.run(until(lambda: state(pid) in ("", "Z")))


DAEMON = """
import asyncio, os, signal, sys
from pathlib import Path
from runtime.learning.jobs import Base
from runtime.learning.trainer import Trainer

async def main():
    one = Trainer(nice=0, threads=1)
    await one.ready(Base(directory=sys.argv[1], revision=sys.argv[2], dtype=sys.argv[3]))
    while b"libtorch" not in Path(f"/proc/{one.pid}/maps").read_bytes():  # it has tied itself to us before
        await asyncio.sleep(0.05)
    os.kill(one.pid, signal.SIGSTOP)
    print(one.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
