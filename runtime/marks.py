"""Which messages of a producer that numbers them were heard, and which are missing: `boot`, a name for the counter, and `seq`,
1, 2, 3 …, beside `producer` among a message's user properties.

A hole that stays open for PATIENCE is a Gap in the journal, a line in the log and a count in the metrics: loss is never silent,
wherever on the way it happened. From then on the gap's own row answers for it: the mark up to which all is settled moves past it,
and what comes late fills it. What is missing at the end of a counter nobody can know.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from runtime.journal import Journal, Settled
from runtime.messages import Gap, derived_id
from runtime.metrics import Metrics

PATIENCE = 60.0  # seconds that a number may come late
LOOK = 5.0  # seconds between two looks
COUNTERS = 1000  # counters that are followed; those beyond are not, and that is told
HOLES = 10_000  # holes of one counter that may wait; if there are more, none waits
ROWS = 20  # holes of one counter that are a gap each at one look; if there are more, one gap spans them all

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
class Runs:
    """A set of numbers, kept as what is contiguous of it: (first, last) in order, none touching the next."""

    firsts: list[int] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)

    def add(self, first: int, last: int) -> None:
        begin, end = bisect_left(self.lasts, first - 1), bisect_right(self.firsts, last + 1)
        if begin < end:
            first, last = min(first, self.firsts[begin]), max(last, self.lasts[end - 1])
        self.firsts[begin:end], self.lasts[begin:end] = [first], [last]

    def within(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Those that begin after `first` and before `last`."""
        places = slice(bisect_right(self.firsts, first), bisect_left(self.firsts, last))
        return zip(self.firsts[places], self.lasts[places], strict=True)

    def between(self) -> Iterator[tuple[int, int]]:
        """(first, last) of what lies between them, in order."""
        return ((last + 1, first - 1) for last, first in zip(self.lasts, self.firsts[1:], strict=False))

    def __len__(self) -> int:
        return sum(self.lasts) - sum(self.firsts) + len(self.firsts)


@dataclass
class Open:
    """A gap that was told, and which of its numbers came."""

    gap: Gap
    came: Runs = field(default_factory=Runs)

    @property
    def whole(self) -> bool:
        return self.came.firsts == [self.gap.first] and self.came.lasts == [self.gap.last]

    @property
    def lacking(self) -> int:
        return self.gap.last - self.gap.first + 1 - len(self.came)


@dataclass
class Counter:
    """One counter: all up to `upto` was heard or is told to be missing; some beyond."""

    runs: Runs = field(default_factory=Runs)
    gaps: list[Open] = field(default_factory=list)  # by number
    new: list[Open] = field(default_factory=list)  # those that the journal has yet to get
    full: list[Open] = field(default_factory=list)  # and those that it has yet to close
    seen: list[tuple[float, int]] = field(default_factory=list)  # monotonic time of a look, and the highest number then

    @classmethod
    def at(cls, upto: int = 0) -> Counter:
        return cls(Runs([0], [upto]))

    @property
    def upto(self) -> int:
        return self.runs.lasts[0]

    def hear(self, number: int) -> None:
        place = bisect_right(self.gaps, number, key=_first) - 1
        told = self.gaps[place] if place >= 0 else None
        if told and number <= told.gap.last and not told.whole:
            told.came.add(number, number)
            if told.whole:
                self.full.append(told)
        self.runs.add(number, number)

    def holes(self) -> Iterator[tuple[int, int]]:
        """(first, last) of what is missing and not told, in order."""
        return self.runs.between()

    def due(self, now: float) -> list[tuple[int, int]]:
        """What stayed open for PATIENCE: a hole that was there at a look lies below the highest number then, so the older ones are
        always the lower ones."""
        if len(self.runs.firsts) == 1:
            self.seen.clear()
            return []
        highest = self.runs.lasts[-1]
        if not self.seen or self.seen[-1][1] < highest:
            self.seen.append((now, highest))
        while len(self.seen) > 1 and now - self.seen[1][0] >= PATIENCE:
            del self.seen[0]
        at, limit = self.seen[0]
        if len(self.runs.firsts) > HOLES:
            limit = highest
        elif now - at < PATIENCE:
            return []
        found = list(takewhile(lambda hole: hole[1] < limit, self.holes()))
        return [(found[0][0], found[-1][1])] if len(found) > ROWS else found

    def tell(self, gap: Gap) -> Open:
        """It is a gap from now on."""
        told = Open(gap)
        for first, last in self.runs.within(gap.first, gap.last):
            told.came.add(first, last)
        self.gaps.append(told)
        self.new.append(told)
        self.runs.add(gap.first, gap.last)
        return told

    def known(self, gap: Gap) -> None:
        """The journal says so; which of its numbers came is heard after that. In order."""
        self.gaps.append(Open(gap))
        self.runs.add(gap.first, gap.last)

    def written(self, new: int, full: int) -> None:
        """The journal has so many of `new` and `full`."""
        closed = {id(one) for one in self.full[:full]}
        if closed:
            self.gaps = [one for one in self.gaps if id(one) not in closed]
        del self.new[:new], self.full[:full]


def _first(one: Open) -> int:
    return one.gap.first


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
        self._told = False

    async def restore(self) -> None:
        """As the journal has it: first the marks, then the gaps, then what was heard of these and beyond those."""
        heard = await self._journal.heard()
        self._folded = {(producer, boot): upto for producer, boot, upto, number in heard if number is None}
        self._counters = {place: Counter.at(upto) for place, upto in self._folded.items()}
        for gap in await self._journal.open_gaps():
            self._counters.setdefault((gap.producer, gap.boot), Counter.at()).known(gap)
        for producer, boot, _, number in heard:
            if number is not None:
                self._counters.setdefault((producer, boot), Counter.at()).hear(number)

    def hear(self, place: Numbered) -> None:
        """It is in the journal."""
        counter = self._counters.get((place.producer, place.boot))
        if counter is None:
            if len(self._counters) >= COUNTERS:
                return self._too_many(place)
            counter = self._counters[place.producer, place.boot] = Counter.at()
        return counter.hear(place.number)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await self.look()

    async def look(self) -> None:
        """Holes that stayed open, and gaps that were filled; what is settled is kept as one number. The counters know of a gap
        before the journal does: a number that comes meanwhile is one of the gap's in both, in whatever order they are committed."""
        for (producer, boot), counter in self._counters.items():
            for first, last in counter.due(self._monotonic()):
                identity = derived_id("gp", producer, boot, str(first), str(last))
                gap = Gap(id=identity, producer=producer, boot=boot, first=first, last=last, at=self._clock())
                missing = counter.tell(gap).lacking
                self._metrics.gaps.inc(missing)
                log.warning(
                    "messages are missing", producer=producer, boot=boot, first=first, last=last, missing=missing
                )
        await self._write()

    async def _write(self) -> None:
        """All that the journal lacks, in one transaction; what it does not take now is written at the next look."""
        made = [one for place, counter in self._counters.items() if (one := self._settled(place, counter)) is not None]
        known = [(place, len(c.new), len(c.full)) for place, c in self._counters.items() if c.new or c.full]
        await self._journal.settle(made)
        self._folded |= {(one.producer, one.boot): one.upto for one in made}
        for place, new, full in known:
            for closed in self._counters[place].full[:full]:
                log.info(
                    "what was missing came",
                    producer=place[0],
                    boot=place[1],
                    first=closed.gap.first,
                    last=closed.gap.last,
                )
            self._counters[place].written(new, full)

    def _settled(self, place: tuple[str, str], counter: Counter) -> Settled | None:
        before = self._folded.get(place, 0)
        if counter.upto == before and not counter.new and not counter.full:
            return None
        filled = [replace(one.gap, filled=self._clock()) for one in counter.full]
        since = min([before + 1, *(gap.first for gap in filled)])
        return Settled(*place, since, counter.upto, (*(one.gap for one in counter.new), *filled))

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
        return sum(one.lacking for counter in self._counters.values() for one in counter.gaps)
