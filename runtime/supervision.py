"""Keeps side tasks alive: a plugin that raises is restarted with back-off, one that keeps raising is set aside.

What is covered: exceptions and early returns of plugin coroutines. What is not: a plugin that blocks the event loop
(that needs a process of its own). Our own stages are not supervised: an error there ends the daemon loudly, and the
service manager starts it again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

FIRST_BACKOFF = 0.5  # seconds; doubles with every failure in a row
MAX_BACKOFF = 30.0  # seconds
INTENSITY = 6  # failures within PERIOD that set a task aside
PERIOD = 120.0  # seconds

log = structlog.get_logger("supervision")


@dataclass
class Child:
    """One supervised task and what became of it."""

    name: str
    state: str = "starting"  # starting running restarting quarantined finished
    restarts: int = 0
    error: str = ""
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=INTENSITY))

    def failed(self, error: BaseException) -> float | None:
        """Note a failure; the seconds to wait before the next try, or None if it is enough."""
        self.error = f"{type(error).__name__}: {error}"
        self.failures.append(time.monotonic())
        self.restarts += 1
        if len(self.failures) == INTENSITY and self.failures[-1] - self.failures[0] < PERIOD:
            return None
        return min(MAX_BACKOFF, FIRST_BACKOFF * 2.0 ** (len(self.failures) - 1))


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
