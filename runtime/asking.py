"""Belief -> ask a person instead? Where it would rather be wrong than right, and only as often as people bear.

Nothing is asked before there are trained weights whose chances were learnt from ENOUGH held-out answers, and by default only
where somebody spoke: there is a person to answer. Questions are at most a share of the last WINDOW decisions, counted strictly
from the first one on. Rehearsals ask nothing and count nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from runtime.config import PolicyConfig
from runtime.learning import knowing
from runtime.learning.trust import Belief, Knowing
from runtime.messages import ASK, NOTHING, Action, Percept

ENOUGH = 10  # held-out answers that the chances were learnt from; as a tenth is held out, after about 100 lessons
WINDOW = 200  # decisions over which the share of questions is counted
WIDE = 5  # more plausible actions than these are too many to guess, or to show
FEW = 3  # choices that a question offers at least, if there are so many


@dataclass(frozen=True)
class Doubt:
    """How sure it is, and what follows."""

    chance: float  # that what it believes in is right
    plausible: tuple[Action, ...]  # the conformal set; () where too little is known for one
    choices: tuple[Action, ...]  # what a question offers, likeliest first
    instead: Action | None  # of what it believes in


class Asking:
    """One for all scopes: it is the same people who are asked."""

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._recent: deque[bool] = deque(maxlen=WINDOW)

    def doubt(self, percept: Percept, belief: Belief, known: Knowing) -> Doubt:
        """Counts the decision, and the question if it comes to one."""
        chance = knowing.chance(belief, known)
        plausible = knowing.plausible(belief, known, self._config.miss)
        choices = _choices(belief, plausible)
        instead = None
        if self._may_ask(percept, belief, known):
            unsure = chance < self._config.ask_below or len(plausible) > WIDE
            instead = self._instead(unsure and len(choices) > 1)
        return Doubt(chance, plausible, choices if instead == ASK else (), instead)

    def _may_ask(self, percept: Percept, belief: Belief, known: Knowing) -> bool:
        counted = known.missed if belief.log_memory else known.missed_alone
        if percept.synthetic or len(counted) < ENOUGH:
            return False
        return self._config.ask == "always" or (self._config.ask == "speech" and percept.kind == "speech")

    def _instead(self, unsure: bool) -> Action | None:
        last = list(self._recent)[-(WINDOW - 1) :]  # and this one
        asks = unsure and sum(last) + 1 <= self._config.ask_share * (len(last) + 1)
        self._recent.append(asks)
        if asks:
            return ASK
        return NOTHING if unsure and self._config.unsure == "nothing" else None


def _choices(belief: Belief, plausible: tuple[Action, ...]) -> tuple[Action, ...]:
    order = sorted(range(len(belief.actions)), key=belief.log_both.__getitem__, reverse=True)
    return tuple(belief.actions[i] for i in order[: min(max(len(plausible), FEW), WIDE)])
