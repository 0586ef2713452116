"""How the daemon stands, in one word and its causes: NORMAL, DEGRADED, SAFE or HOLD; every change is told everywhere.

NORMAL     everything that was configured works
DEGRADED   something does not (named), the rest goes on
SAFE       started without plugins, model and learner (`runtime.safe`)
HOLD       the kill switch is on: nothing is commanded
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import structlog

from runtime import systemd
from runtime.errors import Unwritable
from runtime.journal import Journal
from runtime.metrics import Metrics

LOOK = 1.0  # seconds between two looks
UNWRITTEN = 100  # changes that wait for a disk which takes nothing
NAMES = ("NORMAL", "DEGRADED", "SAFE", "HOLD")  # from good to grave

log = structlog.get_logger("condition")
Name = Literal["NORMAL", "DEGRADED", "SAFE", "HOLD"]


@dataclass(frozen=True)
class Condition:
    name: Name
    causes: tuple[str, ...] = ()


def of(*, safe: str, killed: bool, degraded: Sequence[str]) -> Condition:
    """The gravest that holds; the causes are all there are."""
    causes = (*(("the kill switch is on",) if killed else ()), *((safe,) if safe else ()), *degraded)
    name: Name = "HOLD" if killed else "SAFE" if safe else "DEGRADED" if degraded else "NORMAL"
    return Condition(name, causes)


class Watch:
    """Notices changes and writes them down: the journal, the log, the metrics, the service manager."""

    def __init__(self, look: Callable[[], Condition], journal: Journal, metrics: Metrics) -> None:
        self._look, self._journal, self._metrics = look, journal, metrics
        self._last: Condition | None = None
        self._unwritten: deque[dict[str, Any]] = deque(maxlen=UNWRITTEN)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """One look. A row in the journal only where the word or a cause has changed, as soon as it can be written."""
        found = self._look()
        if found != self._last:
            self._changed(found)
        with suppress(Unwritable):
            while self._unwritten:
                await self._journal.add_transition(self._unwritten[0])
                self._unwritten.popleft()

    def _changed(self, found: Condition) -> None:
        before, self._last = self._last, found
        self._metrics.condition_is(NAMES, found.name)
        systemd.notify("STATUS=" + " ".join([found.name, *found.causes[:3]])[:500].replace("\n", " "))
        say = log.info if found.name == "NORMAL" else log.warning
        say("condition", now=found.name, before=before.name if before else "", causes=list(found.causes))
        row: dict[str, Any] = {
            "at": time.time(), "condition": found.name, "before": before.name if before else "",
            "causes": list(found.causes),
        }  # fmt: skip
        self._unwritten.append(row)
