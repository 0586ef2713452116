"""How often an apprentice would have done what people did -> may it do so by itself, or no longer? Asked after every case.

An e-value (a bet against "at most this share"; Ramdas et al., arXiv 2210.01948): the likelihood of what was seen, averaged over
a grid of shares above `share`, over its likelihood at `share`. If the true share is no greater, its expectation never exceeds
1, so it ever reaches 20 with a chance of at most 5 %, however often one looks. It hangs on two counts alone.

Proof is asked of all newest cases together; a break is found in however few of the newest ones show it (an e-detector: Shin,
Ramdas and Rinaldo, arXiv 2203.03532), for habits end at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

GRID = 32  # shares that are averaged over
ODDS = 20.0  # of a bet that is won
CASES = 100  # newest ones that are looked at
LATE = 30  # of those, in which a break is looked for


def odds(hits: int, misses: int, share: float) -> float:
    """What a bet of 1 on "more than `share` of the cases are hits" (0 < share < 1) has become."""
    steps = ((1 - share) * (k + 0.5) / GRID for k in range(GRID))
    logs = [hits * math.log((share + up) / share) + misses * math.log((1 - share - up) / (1 - share)) for up in steps]
    return math.fsum(map(math.exp, logs)) / GRID


def proven(cases: Sequence[bool], bound: float) -> bool:
    """People do the same (True) in more than `bound` of such cases: for 0.8, 20 without a miss, 31 with one, 41 with two."""
    newest = cases[-CASES:]
    hits = sum(newest)
    return odds(hits, len(newest) - hits, bound) >= ODDS


def broken(cases: Sequence[bool], bound: float) -> bool:
    """They no longer do: for 0.8, the last 3, 4 of the last 5, 5 of the last 7 or 6 of the last 10 were misses."""
    hits = misses = 0
    for case in reversed(cases[-LATE:]):
        hits, misses = hits + case, misses + (not case)
        if odds(misses, hits, 1 - bound) >= ODDS:
            return True
    return False
