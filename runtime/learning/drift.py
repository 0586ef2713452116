"""A row of numbers, oldest first -> has it risen of late? For what people correct, and for how new what comes in is.

ADWIN (Bifet and Gavalda 2007, doi 10.1137/1.9781611972771.42): a window grows for as long as no two parts of it differ more than
chance explains, so it needs no length to be told. `river` has it, compiled; only that core is imported, because the package
`river.drift` brings scipy (80 MB in the daemon, 0.7 s; the core 0.7 MB). A test holds the two alike.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from river._river_rust.drift import AdaptiveWindowing

from runtime.messages import Message

DELTA = 0.1  # of ADWIN, which is careful: at a steady rate an alarm in some 10,000 or more; a needless cycle is all it costs
LEAST = 5  # numbers on either side of a change
TOP = 0.9  # share of those before it that a number is above, if it stands out
SOME = 20  # numbers before it, at least, to say so


class Rise(Message, frozen=True, kw_only=True):
    """The mean of the newest `of` numbers, and of all before them."""

    now: float
    of: int
    before: float


def rise(numbers: Sequence[float]) -> Rise | None:
    """The change if `numbers` (in [0, 1], oldest first) have risen, else None. A fall is no reason to learn."""
    window = AdaptiveWindowing(delta=DELTA, clock=1, max_buckets=5, min_window_length=LEAST, grace_period=2 * LEAST)
    for place, number in enumerate(numbers, start=1):
        width = window.get_width()
        if window.update(float(number)):
            change = _split(numbers[max(0, place - 1 - int(width)) : place])
            if change.now > change.before:
                return change
    return None


def stands_out(number: float, before: Collection[float]) -> bool:
    """Whether it is above nine of ten of those `before`. One in ten is, as long as nothing changes, whatever their scale; and
    where they fall slowly, as novelty does while it learns, fewer are."""
    return len(before) >= SOME and sum(other < number for other in before) >= TOP * len(before)


def _split(numbers: Sequence[float]) -> Rise:
    """Where the two sides of a change differ most: the least sum of squares around two means."""
    total, left = math.fsum(numbers), 0.0
    found, best = Rise(now=0.0, of=0, before=0.0), -1.0
    for count, number in enumerate(numbers, start=1):
        left += number
        rest = len(numbers) - count
        if min(count, rest) < LEAST:
            continue
        before, now = left / count, (total - left) / rest
        if (gain := count * rest * (now - before) ** 2) > best:
            found, best = Rise(now=now, of=rest, before=before), gain
    return found
