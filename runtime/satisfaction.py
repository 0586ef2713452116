"""JOURNAL -> are people content? How they rate, how often they have to correct, and how often they come back with the same
thing: lately, in all, and of every version of the weights, so that a release can be seen to have made them happier or not.

The same code measures a living house and a backtest. Nothing here is learnt from or decided by: who is judged by people's
approval and also steered by it learns to please.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

from runtime import contacts, trends
from runtime.journal import Journal
from runtime.messages import Message, Release, Turn
from runtime.trends import Difference, Trend

LOOK_BACK = 20_000  # newest decisions that are measured
DAYS = 7.0  # that "lately" is, if nobody says otherwise
SETTLED = 600.0  # seconds after which a decision that nobody said anything about counts as left as it was
FRESH = 60.0  # seconds for which a report is good enough for a page that looks all the time
DAY = 86_400.0


class Measured(Message, frozen=True, kw_only=True):
    """Of some decisions. Shares are None where there is nothing to have a share of."""

    decisions: int
    judged: int  # of them, those of which somebody said whether they were right
    overridden: int  # of those, where people said or did something else
    override_rate: float | None  # of the judged
    overridden_share: float | None  # of all
    left: float | None  # share of all that nobody corrected or disliked
    override_trend: Trend  # of what had to be corrected, over the judged
    ratings: int
    rating: float | None  # mean, in [-1, 1]
    rating_trend: Trend
    contacts: int  # times that somebody spoke
    repeated: int  # of them, with something that was not settled before
    repeated_contacts: float | None  # share


class Version(Message, frozen=True, kw_only=True):
    """What people thought of one version of the weights, and whether that differs from the version it took over from."""

    adapter: str
    since: float  # its first decision
    before: str  # the version it took over from; "" = it is the first
    measured: Measured
    complaints: Difference = "too few to tell"  # decisions corrected or disliked, against that version


class Report(Message, frozen=True, kw_only=True):
    at: float
    days: float
    lately: Measured  # the last `days` days
    all: Measured  # the newest LOOK_BACK decisions
    versions: tuple[Version, ...]  # oldest first


def report(
    turns: Sequence[Turn], releases: Sequence[Release], *, now: float, days: float = DAYS, within: float = contacts.WITHIN
) -> Report:  # fmt: skip
    """Of turns and releases in the order of time. `within`: seconds in which somebody comes back."""
    repeated = contacts.repeated(turns, within)
    known = [turn for turn in turns if turn.judged or turn.rating is not None or now - turn.at >= SETTLED]
    return Report(
        at=now,
        days=days,
        lately=measure([turn for turn in known if now - turn.at <= days * DAY], repeated),
        all=measure(known, repeated),
        versions=_versions(known, releases, repeated),
    )


def measure(turns: Sequence[Turn], repeated: frozenset[str]) -> Measured:
    """`repeated`: ids of the decisions on contacts that came back."""
    judged = [turn.overridden for turn in turns if turn.judged]
    ratings = [turn.rating for turn in turns if turn.rating is not None]
    spoken = [turn.decision in repeated for turn in turns if turn.words]
    return Measured(
        decisions=len(turns),
        judged=len(judged),
        overridden=sum(judged),
        override_rate=_share(sum(judged), len(judged)),
        overridden_share=_share(sum(judged), len(turns)),
        left=_share(sum(not turn.wrong for turn in turns), len(turns)),
        override_trend=trends.trend(judged),
        ratings=len(ratings),
        rating=math.fsum(ratings) / len(ratings) if ratings else None,
        rating_trend=trends.trend(ratings),
        contacts=len(spoken),
        repeated=sum(spoken),
        repeated_contacts=_share(sum(spoken), len(spoken)),
    )


def _versions(turns: Sequence[Turn], releases: Sequence[Release], repeated: frozenset[str]) -> tuple[Version, ...]:
    own: dict[str, list[Turn]] = {}
    for turn in turns:
        own.setdefault(turn.adapter, []).append(turn)
    took_over: dict[str, str] = {}
    for release in releases:
        took_over.setdefault(release.adapter, release.previous)
    return tuple(_version(adapter, took_over.get(adapter, ""), own, repeated) for adapter in own)


def _version(adapter: str, before: str, own: dict[str, list[Turn]], repeated: frozenset[str]) -> Version:
    now, then = ([turn.wrong for turn in own.get(name, ())] for name in (adapter, before))
    return Version(
        adapter=adapter,
        since=own[adapter][0].at,
        before=before if before in own else "",
        measured=measure(own[adapter], repeated),
        complaints=trends.difference(sum(now), len(now), sum(then), len(then)),
    )


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


class Satisfaction:
    """Reads the journal when asked, and at most once in FRESH seconds for those who ask all the time."""

    def __init__(self, journal: Journal, clock: Callable[[], float] = time.time) -> None:
        self._journal, self._clock = journal, clock
        self._last: Report | None = None

    async def report(self, days: float = DAYS) -> Report:
        turns = await self._journal.turns(LOOK_BACK)
        releases = (await self._journal.releases(limit=LOOK_BACK))[::-1]
        return await asyncio.to_thread(report, turns, releases, now=self._clock(), days=days)

    async def lately(self) -> Report:
        """Perhaps a minute old."""
        if self._last is None or self._clock() - self._last.at > FRESH:
            self._last = await self.report()
        return self._last
