"""Supervision: a plugin that raises comes back, one that keeps raising is set aside, and a stop is a stop."""

from __future__ import annotations

import asyncio

import pytest

from runtime import supervision
from runtime.__main__ import SOFTWARE, ours
from runtime.errors import Unavailable
from runtime.supervision import Child, supervise

SAFETY = 20.0  # seconds after which a test that hangs is ended


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF", 0.0)


async def test_a_task_that_raises_is_started_again() -> None:
    child, runs, states = Child("sensor"), list[int](), list[str]()

    async def run() -> None:
        runs.append(len(runs))
        states.append(child.state)
        if len(runs) < 3:
            raise OSError("cable out")

    async with asyncio.timeout(SAFETY):
        await supervise(child, run)
    assert (len(runs), child.restarts, child.state, child.error) == (3, 2, "finished", "OSError: cable out")
    assert states == ["running"] * 3


async def test_a_task_that_keeps_raising_is_set_aside() -> None:
    child, runs = Child("sensor"), list[int]()

    async def run() -> None:
        runs.append(1)
        raise ValueError("no such device")

    async with asyncio.timeout(SAFETY):
        await supervise(child, run)
    assert (len(runs), child.state) == (supervision.INTENSITY, "quarantined")
    assert child.error == "ValueError: no such device"


async def test_failures_far_apart_are_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "PERIOD", 0.0)
    child, runs = Child("sensor"), list[int]()

    async def run() -> None:
        runs.append(1)
        if len(runs) <= 3 * supervision.INTENSITY:
            raise ValueError("now and then")

    async with asyncio.timeout(SAFETY):
        await supervise(child, run)
    assert (child.restarts, child.state) == (3 * supervision.INTENSITY, "finished")


async def test_one_that_fails_stops_no_other() -> None:
    other, begun, stopping = Child("other"), asyncio.Event(), asyncio.Event()

    async def works() -> None:
        begun.set()
        await stopping.wait()

    async def fails() -> None:
        raise ValueError("always")

    async with asyncio.timeout(SAFETY), asyncio.TaskGroup() as group:
        group.create_task(supervise(other, works))
        await begun.wait()
        await supervise(Child("sensor"), fails)
        assert other.state == "running"
        stopping.set()
    assert (other.state, other.restarts) == ("finished", 0)


async def test_cancelling_ends_it_without_a_restart() -> None:
    child, begun = Child("sensor"), asyncio.Event()

    async def run() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(supervise(child, run))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert child.restarts == 0


def test_the_wait_doubles_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF", 0.5)
    monkeypatch.setattr(supervision, "MAX_BACKOFF", 3.0)
    child = Child("sensor")
    waits = [child.failed(ValueError("x")) for _ in range(supervision.INTENSITY)]
    assert waits == [0.5, 1.0, 2.0, 3.0, 3.0, None]


async def test_a_stage_of_ours_that_does_not_come_up_ends_the_daemon() -> None:
    child, runs = supervision.stage("shadow"), list[int]()

    async def run() -> None:
        runs.append(1)
        raise ValueError("a bug of ours")

    with pytest.raises(supervision.Escalated, match="shadow failed 5 times: ValueError: a bug of ours"):
        async with asyncio.timeout(SAFETY):
            await supervision.insist(child, run)
    assert len(runs) == supervision.STAGE_INTENSITY


async def test_who_asks_to_be_set_aside_is_not_tried_again() -> None:
    child, runs = Child("plugin"), list[int]()

    async def run() -> None:
        runs.append(1)
        raise supervision.SetAside("it lies")

    async with asyncio.timeout(SAFETY):
        await supervise(child, run)
    assert (len(runs), child.state, child.error) == (1, "quarantined", "it lies")


def test_what_people_can_mend_and_what_is_our_fault_have_different_codes() -> None:
    assert ours(ExceptionGroup("", [ExceptionGroup("", [Unavailable("the port is taken")])]))
    assert not ours(ExceptionGroup("", [supervision.Escalated("shadow failed")]))
    assert SOFTWARE == 70


async def test_a_stop_that_comes_together_with_a_failure_is_a_stop() -> None:
    """A task group that fails while it is cancelled raises its failure only. Found by `make chaos` on a full disk: the
    plugin lived on without the stages, acknowledged, and no signal ended the daemon."""
    child, runs, failing = Child("sensor"), list[int](), asyncio.Event()

    async def fails_at_its_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("the disk is full")

    async def run() -> None:
        runs.append(1)
        if len(runs) > 1:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(fails_at_its_end())
            failing.set()

    task = asyncio.create_task(supervise(child, run))
    async with asyncio.timeout(SAFETY):
        await failing.wait()
        await asyncio.sleep(0)  # the task in the group has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert runs == [1]
