"""Keeps side tasks alive: a plugin that raises is restarted with back-off, one that keeps raising is set aside.

What is covered: exceptions and early returns of plugin coroutines, and whatever befalls the process of an isolated one. What is
not: a plugin in this process that blocks the event loop (`runtime.stalls` names it).

Escalation: a plugin never ends more than itself. A stage of ours that only watches is started again (`insist`), at most
STAGE_INTENSITY times in STAGE_PERIOD; then, and at once where a stage takes part in decisions, the daemon ends with code 70
and the service manager starts it again: what was under way is found in the journal. Starts that do not live lead to safe mode
(`runtime.boots`, `runtime.safe`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from runtime.errors import first

FIRST_BACKOFF = 0.5  # seconds; doubles with every failure in a row
MAX_BACKOFF = 30.0  # seconds
INTENSITY = 6  # failures within PERIOD that set a task aside
PERIOD = 120.0  # seconds
STAGE_INTENSITY, STAGE_PERIOD = 5, 30.0  # of our own stages

log = structlog.get_logger("supervision")


class SetAside(Exception):
    """Raised by a task that must not be tried again; its text says why."""


class Escalated(Exception):
    """A part of ours does not come up any more; the process has to start afresh."""


@dataclass
class Child:
    """One supervised task and what became of it."""

    name: str
    state: str = "starting"  # starting running restarting quarantined finished
    restarts: int = 0
    error: str = ""
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=INTENSITY))
    period: float = field(default_factory=lambda: PERIOD)

    def failed(self, error: BaseException) -> float | None:
        """Note a failure; the seconds to wait before the next try, or None if it is enough."""
        error = first(error)
        self.error = f"{type(error).__name__}: {error}"
        self.failures.append(time.monotonic())
        self.restarts += 1
        if isinstance(error, SetAside):
            self.error = str(error)
            return None
        if len(self.failures) == self.failures.maxlen and self.failures[-1] - self.failures[0] < self.period:
            return None
        return min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** (len(self.failures) - 1))


def stage(name: str) -> Child:
    """One of our own that may be started again."""
    return Child(name, failures=deque(maxlen=STAGE_INTENSITY), period=STAGE_PERIOD)


async def insist(child: Child, run: Callable[[], Awaitable[None]]) -> None:
    """As `supervise`, but what fails too often is not set aside: raises Escalated, which ends the daemon."""
    await supervise(child, run)
    if child.state == "quarantined":
        raise Escalated(f"{child.name} failed {child.restarts} times: {child.error}")


async def supervise(child: Child, run: Callable[[], Awaitable[None]]) -> None:
    """Run it until it returns; restart it when it raises; set it aside (and stay) when it raises too often."""
    while True:
        child.state = "running"
        try:
            await run()
        except Exception as error:  # the border: whatever a plugin raises stops here
            if _told_to_end():
                raise asyncio.CancelledError from error
            wait = child.failed(error)
        else:
            child.state = "finished"
            return
        if wait is None:
            child.state = "quarantined"
            log.error("set aside after repeated failures", task=child.name, error=child.error, restarts=child.restarts)
            return
        child.state = "restarting"
        log.warning("failed, restarting", task=child.name, error=child.error, seconds=round(wait, 1))
        await asyncio.sleep(wait)


def _told_to_end() -> bool:
    """Our end and a failure came together: a task group raises the failure then and keeps the cancellation to itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
