"""What was let go because too much came: counted by class and minute. Loss is allowed for some messages, never silence about it.

The counts of a moment go into the journal together. A future is done when the count it stands for is there, so that a broker's
acknowledgement can wait for it.
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
        self._written: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._told = 0  # the minute in which it was last logged

    def count(self, name: str) -> asyncio.Future[None]:
        """One message of this class was let go."""
        minute = int(self._clock() // 60)
        if minute != self._told:
            self._told = minute
            log.warning("too much comes, some of it is let go", of=name)
        self._counts[name, minute] += 1
        self._metrics.shed.labels(name).inc()
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
            self._written.add_done_callback(lambda future: future.exception())  # not everybody waits for it
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="shed counts")
        return self._written

    async def _write(self) -> None:
        """Until nothing is left; what the journal cannot have now waits for the next count."""
        while self._written is not None:
            written, self._written = self._written, None
            counts, self._counts = self._counts, Counter()
            try:
                await self._journal.shed(counts)
            except Unavailable as error:
                self._counts += counts
                written.set_exception(error)
                break
            written.set_result(None)
        self._writing = None

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await self._writing
        if self._counts:
            await self._journal.shed(self._counts)
