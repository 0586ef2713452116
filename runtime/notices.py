"""What a person ought to know and nobody can mend by himself (a broker that forgets, a session that is lost): a line in the log, a
row in the journal, a line in `corrigible status`.

The same sentence is one row, with the time it was last said and how often: a notice that comes with every start fills nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog

from runtime.journal import Journal
from runtime.messages import derived_id

DAY = 86_400.0  # seconds for which one is shown; those of this run are shown for as long as it lasts
SHOWN = 20
TEXT_LIMIT = 1000  # characters
WAITING = 100  # not yet written; beyond it they are only in the log

log = structlog.get_logger("notices")


class Notices:
    """`tell` from the event loop, `close` before the journal."""

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self._journal, self._clock = journal, clock
        self._started = clock()
        self._waiting: list[tuple[str, str, float]] = []
        self._writing: asyncio.Task[None] | None = None

    def tell(self, kind: str, text: str) -> None:
        """`kind` in one word; `text` in one sentence: what, why it matters, how to mend it."""
        log.warning("notice", kind=kind, text=text)
        if len(self._waiting) < WAITING:
            self._waiting.append((kind[:TEXT_LIMIT], text[:TEXT_LIMIT], self._clock()))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="notices")

    async def shown(self) -> list[dict[str, Any]]:
        """Those of this run and of the last day, newest first: kind, text, at (UTC seconds), first, times."""
        since = min(self._started, self._clock() - DAY)
        return [found for found in await self._journal.notices(SHOWN) if found["at"] >= since]

    async def _write(self) -> None:
        try:
            while self._waiting:
                kind, text, at = self._waiting[0]
                key = f"notice {derived_id('no', kind, text)}"
                old = await self._journal.metadata(key) or {"first": at, "times": 0}
                row = {"kind": kind, "text": text, "at": at, "first": old["first"], "times": old["times"] + 1}
                await self._journal.set_metadata(key, row)
                del self._waiting[0]
        except Exception as error:  # the disk is full, or a reader cannot read
            log.warning("a notice is not written; the next one tries again", reason=str(error))
        finally:
            self._writing = None  # else no later notice would be written

    async def close(self) -> None:
        """Write what is left."""
        if self._writing is not None:
            await self._writing
        await self._write()
