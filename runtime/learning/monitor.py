"""What people say of a version in service -> whether it stays: two sequential tests that may be looked at after every word.

`Trial`: a provisional version against the one before it, on the situations of which it became known what is right. Only those
count on which the two differ; the difference of wins and losses is a random walk, and its two bounds are those of Wald's
sequential probability ratio test (1945) of "wins 63 % of them" against "loses 63 %", which is what 5 points of accuracy are
where 19 % of the answers differ. The lower bound is near: a version that has shown nothing yet is given up early.
While it is only asked in silence (`ladder`) it can lose but not win: people see the other one's answers alone, and who only
corrects speaks of that one's mistakes, so a version that is worse would win nearly every word.

`worse`: of a version that serves alone, an e-process (a bet that complaints come more often than before; Waudby-Smith and
Ramdas, arXiv 2010.09686): under the old rate its expectation never exceeds 1, so it reaches 20 with a chance of at most 5 %,
however often one looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec.structs import replace

from runtime.messages import Message

UP, DOWN = 5, -2  # wins less losses at which a trial ends
ENOUGH = 300  # events after which a version that was not given up is no worse
STAKES = (0.25, 0.5, 1.0, 2.0)  # shares of the wealth that are bet, times what is left of the range
TAKEN = 20.0  # wealth at which the bet is won
LEAST = 20  # decisions from which a rate is told at all
WILSON = 1.28  # standard deviations above what was seen: 90 %

Ending = Literal["", "better", "worse"]


class Trial(Message, frozen=True, kw_only=True):
    """A provisional release as far as it has come."""

    release: str
    acting: bool = True  # it makes its share of the decisions
    wins: int = 0
    losses: int = 0
    events: int = 0
    counted: tuple[str, ...] = ()  # ids of the newest decisions that were counted: a second word on one adds nothing

    def after(self, right: bool, other_right: bool, decision: str = "") -> Trial:
        """One more situation: was the version on trial right, and the one before it?"""
        return replace(
            self,
            wins=self.wins + (right and not other_right),
            losses=self.losses + (other_right and not right),
            events=self.events + 1,
            counted=(*self.counted, decision)[-ENOUGH:],
        )

    @property
    def ending(self) -> Ending:
        net = self.wins - self.losses
        if net <= DOWN:
            return "worse"
        if not self.acting:
            return ""
        return "better" if net >= UP or self.events >= ENOUGH else ""

    def __str__(self) -> str:
        return f"{self.wins} won and {self.losses} lost of {self.events} situations that people judged"


def worse(before: Sequence[bool], now: Sequence[bool]) -> float:
    """Wealth of the bet that complaints (True) come more often `now` than `before`; 1.0 while too little is known."""
    if len(before) < LEAST:
        return 1.0
    usual = _upper(sum(before), len(before))
    wealth = [1.0 for _ in STAKES]
    best = 1.0
    for complaint in now:
        gain = complaint - usual
        wealth = [w * (1 + min(stake, 0.9 / usual) * gain) for w, stake in zip(wealth, STAKES, strict=True)]
        best = max(best, math.fsum(wealth) / len(wealth))
    return best


def _upper(count: int, of: int) -> float:
    """Wilson's upper bound of a rate: better to think too badly of the past than too well."""
    share, z = count / of, WILSON
    centre = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return min((centre + spread) / (1 + z * z / of), 0.99)
