"""Is it getting better? Two questions that satisfaction asks of its figures, answered only where there is enough to tell.

A trend over a row of values: Mann's and Kendall's test (Mann 1945; Kendall 1975), which asks only whether later values tend
to be larger, so ratings need no scale and ties are no trouble. A difference between two shares: the usual z-test of two
proportions, with Yates's correction, which errs towards "cannot be told".
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from runtime.messages import Message

LEAST = 10  # values from which a trend is told
ENOUGH = 20  # of each side, from which a difference is told
CHANCE = 0.05  # what comes about more often than this by chance is not told

Direction = Literal["rising", "falling", "no trend", "too few to tell"]
Difference = Literal["more", "fewer", "no difference", "too few to tell"]


class Trend(Message, frozen=True, kw_only=True):
    """Where a row of values goes."""

    direction: Direction
    values: int
    before: float | None = None  # mean of the first half
    after: float | None = None  # mean of the second half
    chance: float | None = None  # of a row that leans so much one way, were there no trend


def trend(values: Sequence[float]) -> Trend:
    """Of values in the order of time."""
    if len(values) < LEAST:
        return Trend(direction="too few to tell", values=len(values))
    lean, half = _lean(values), len(values) // 2
    chance = math.erfc(abs(lean) / math.sqrt(2))
    direction: Direction = "no trend" if chance >= CHANCE else "rising" if lean > 0 else "falling"
    before, after = values[:half], values[half:]
    return Trend(
        direction=direction, values=len(values), before=math.fsum(before) / len(before),
        after=math.fsum(after) / len(after), chance=chance,
    )  # fmt: skip


def _lean(values: Sequence[float]) -> float:
    """Pairs that rise less pairs that fall, in standard deviations of what chance would give."""
    seen: list[float] = []
    net = 0
    for value in values:
        net += bisect_left(seen, value) - (len(seen) - bisect_right(seen, value))
        insort(seen, value)
    variance = _pairs(len(values)) - sum(map(_pairs, Counter(values).values()))
    if variance <= 0:
        return 0.0  # all alike
    return math.copysign(max(abs(net) - 1, 0), net) / math.sqrt(variance / 18)


def _pairs(count: int) -> int:
    return count * (count - 1) * (2 * count + 5)


def difference(now: int, of_now: int, before: int, of_before: int) -> Difference:
    """Are there more or fewer of something now (`now` of `of_now`) than before?"""
    if min(of_now, of_before) < ENOUGH:
        return "too few to tell"
    share = (now + before) / (of_now + of_before)
    spread = math.sqrt(share * (1 - share) * (1 / of_now + 1 / of_before))
    gap = now / of_now - before / of_before
    certain = max(abs(gap) - (1 / of_now + 1 / of_before) / 2, 0.0)
    if not spread or math.erfc(certain / spread / math.sqrt(2)) >= CHANCE:
        return "no difference"
    return "more" if gap > 0 else "fewer"
