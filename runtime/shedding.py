"""What was let go because too much came: counted by class and minute. Loss is allowed for some messages, never silence about it.

The counts of a moment go into the journal together; what it cannot have now waits for the next.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import structlog

from runtime.errors import Unavailable
from runtime.journal import Journal
from runtime.metrics import Metrics

log = structlog.get_logger("shedding")


class Shedding:
    """`count` one message, `close` before the journal."""

    def __init__(self, journal: Journal, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._counts: Counter[tuple[str, int]] = Counter()  # (class, minute since 1970), not yet written
        self._writing: asyncio.Task[None] | None = None
        self._told = 0  # the minute in which it was last logged

    def count(self, name: str) -> None:
        """One message of this class was let go."""
        minute = int(self._clock() // 60)
        if minute != self._told:
            self._told = minute
            log.warning("too much comes, some of it is let go", of=name)
        self._counts[name, minute] += 1
        self._metrics.shed.labels(name).inc()
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="shed counts")

    async def _write(self) -> None:
        while self._counts:
            counts, self._counts = self._counts, Counter()
            try:
                await self._journal.shed(counts)
            except Unavailable:
                self._counts += counts
                break
        self._writing = None

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await self._writing
        await self._write()
        if self._counts:
            log.error("the journal cannot have the counts of what was let go", counts=self._counts.total())
