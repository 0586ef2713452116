"""Which messages of a producer that numbers them were heard, and which are missing: `boot`, a name for the counter, and `seq`,
1, 2, 3 …, beside `producer` among a message's user properties.

A hole that stays open for PATIENCE is a Gap in the journal, a line in the log and a count in the metrics: loss is never silent,
wherever on the way it happened. What comes late fills it. What is missing at the end of a counter nobody can know.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from runtime.journal import Journal
from runtime.messages import Gap, derived_id
from runtime.metrics import Metrics

PATIENCE = 60.0  # seconds that a number may come late
LOOK = 5.0  # seconds between two looks
COUNTERS = 1000  # counters that are followed; those beyond are not, and that is told
BEYOND = 10_000  # numbers of one counter that are kept beyond its first hole

log = structlog.get_logger("marks")


class Numbered(NamedTuple):
    """One message's place."""

    producer: str
    boot: str
    number: int


def numbered(properties: Mapping[str, str]) -> Numbered | None:
    """What the user properties say, if they say it as they should."""
    producer, boot, number = (properties.get(key, "") for key in ("producer", "boot", "seq"))
    if not (producer and boot and number.isascii() and number.isdigit() and len(number) <= 15 and int(number)):
        return None
    return Numbered(producer, boot, int(number))


@dataclass
class Counter:
    """One counter: all up to `upto`, and these beyond; holes with the monotonic time at which they were noticed."""

    upto: int = 0
    beyond: set[int] = field(default_factory=set)
    since: dict[tuple[int, int], float] = field(default_factory=dict)

    def hear(self, number: int) -> None:
        if number > self.upto:
            self.beyond.add(number)
        while self.upto + 1 in self.beyond:
            self.upto += 1
            self.beyond.discard(self.upto)

    def holes(self) -> Iterator[tuple[int, int]]:
        """(first, last) of what is missing, in order."""
        before = self.upto
        for number in sorted(self.beyond):
            if number > before + 1:
                yield before + 1, number - 1
            before = number


class Marks:
    """All counters. `hear` after the commit; `run` is the coroutine that notices holes."""

    def __init__(
        self, journal: Journal, metrics: Metrics, *,
        clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._journal, self._metrics = journal, metrics
        self._clock, self._monotonic = clock, monotonic
        self._counters: dict[tuple[str, str], Counter] = {}
        self._folded: dict[tuple[str, str], int] = {}  # as the journal has it
        self._open: dict[str, Gap] = {}  # by id
        self._told = False

    async def restore(self) -> None:
        """As the journal has it."""
        for producer, boot, upto, number in await self._journal.heard():
            counter = self._counters.setdefault((producer, boot), Counter(upto))
            if number is not None:
                counter.hear(number)
            else:
                self._folded[producer, boot] = upto
        self._open = {gap.id: gap for gap in await self._journal.gaps() if gap.filled is None}

    def hear(self, place: Numbered) -> None:
        """It is in the journal."""
        counter = self._counters.get((place.producer, place.boot))
        if counter is None:
            if len(self._counters) >= COUNTERS:
                return self._too_many(place)
            counter = self._counters[place.producer, place.boot] = Counter()
        if len(counter.beyond) < BEYOND or place.number <= min(counter.beyond):
            counter.hear(place.number)
        return None

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self.look()

    async def look(self) -> None:
        """Holes that stayed open, and gaps that were filled; what is contiguous is kept as one number."""
        for (producer, boot), counter in tuple(self._counters.items()):
            now, holes = self._monotonic(), list(counter.holes())
            counter.since = {hole: counter.since.get(hole, now) for hole in holes}
            for first, last in holes:
                if now - counter.since[first, last] >= PATIENCE:
                    await self._missing(producer, boot, first, last)
            await self._filled(producer, boot, counter)
        moved = {place: c.upto for place, c in self._counters.items() if c.upto != self._folded.get(place, 0)}
        await self._journal.fold(moved)
        self._folded |= moved

    async def _missing(self, producer: str, boot: str, first: int, last: int) -> None:
        if any(
            (gap.producer, gap.boot) == (producer, boot) and gap.first <= first and last <= gap.last
            for gap in self._open.values()
        ):
            return
        identity = derived_id("gp", producer, boot, str(first), str(last))
        gap = Gap(id=identity, producer=producer, boot=boot, first=first, last=last, at=self._clock())
        await self._journal.put(gap, patient=True)
        self._open[gap.id] = gap
        self._metrics.gaps.inc(last - first + 1)
        log.warning("messages are missing", producer=producer, boot=boot, first=first, last=last)

    async def _filled(self, producer: str, boot: str, counter: Counter) -> None:
        for gap in tuple(self._open.values()):
            if (gap.producer, gap.boot) != (producer, boot):
                continue
            if all(n <= counter.upto or n in counter.beyond for n in range(gap.first, gap.last + 1)):
                del self._open[gap.id]
                await self._journal.put(replace(gap, filled=self._clock()), patient=True)
                log.info("what was missing came", producer=producer, boot=boot, first=gap.first, last=gap.last)

    def _too_many(self, place: Numbered) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "more counters than are followed; a producer keeps its boot name",
                producer=place.producer,
                limit=COUNTERS,
            )

    @property
    def open(self) -> int:
        """Messages that are known to be missing now."""
        return sum(gap.last - gap.first + 1 for gap in self._open.values())
