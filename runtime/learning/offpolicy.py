"""Decisions in which chance had a part, and what people said of them -> would a candidate have done worse than the champion?

Where something else was tried now and then (`[policy] explore`), or two versions drew lots who decides, it is known with
which chance each action was chosen. A person's word on that one action then says something about every version that would
have chosen it: the word counts 1/chance times (inverse propensity). Trainer and gate stand on this; numpy only.

IPS      mean of weight x reward                                    unbiased, scatters
SNIPS    the same, divided by the weights instead of their number   stays within [0, 1], nearly unbiased
DR       what a model of the reward expects, put right by IPS       unbiased, scatters least where the model is good

Who says what would have been right (a correction, an override, an acceptance) tells the reward of every action at once, so
there the model is perfect; of a rated decision it expects the mean of the ratings before it.

The bounds hold at all times (a betting confidence sequence; Waudby-Smith and Ramdas, arXiv 2010.09686, theorem 3), so one may
look at them after every word. Weights are cut off at CLIP on the side on which that makes a bound wider, never narrower
(Waudby-Smith et al., arXiv 2210.10768), so a rare chance cannot veto anybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from runtime.messages import Action, Message

CLIP = 10.0  # largest weight of one word
ALPHA = 0.05  # chance that a bound is ever wrong
ENOUGH = 50.0  # effective sample size below which nothing is concluded
BRAVE = 0.5  # largest share of the wealth that is bet
STEPS = 2000  # means that are tried


class Logged(Message, frozen=True, kw_only=True):
    """A decision as it was made, with the chance of its action, and what people said of it."""

    id: str  # the decision's
    scope: str
    text: str
    action: Action
    chance: float  # in (0, 1]
    reward: float  # of `action`, in [0, 1]
    right: Action | None = None  # what would have been right, if somebody said so


class Told(Message, frozen=True, kw_only=True):
    """The same with its actions written out, so that they can be compared; "" = nobody said what is right."""

    action: str
    chance: float
    reward: float
    right: str = ""


class Value(Message, frozen=True, kw_only=True):
    """What a version would have earned a decision, in [0, 1] but for IPS and DR, which scatter around that."""

    ips: float = 0.0
    snips: float = 0.0
    dr: float = 0.0
    ess: float = 0.0  # effective sample size: so many words of weight 1 would say as much


class Estimate(Message, frozen=True, kw_only=True):
    """Both versions on the same decisions; `lower` and `upper` bound what the candidate earns more than the champion."""

    decisions: int
    candidate: Value
    champion: Value
    lower: float
    upper: float


def estimate(told: Sequence[Told], candidate: Sequence[str], champion: Sequence[str]) -> Estimate:
    """`candidate` and `champion`: what each would have done, in the order of `told` (oldest first)."""
    loss = lower_bound(list(_differences(told, candidate, champion)), -1.0, CLIP - 1.0)
    gain = lower_bound(list(_differences(told, champion, candidate)), -1.0, CLIP - 1.0)
    return Estimate(
        decisions=len(told), candidate=value(told, candidate), champion=value(told, champion), lower=gain, upper=-loss
    )


def value(told: Sequence[Told], says: Sequence[str]) -> Value:
    """What a version would have earned that `says` this."""
    weights = [weight(one) * (one.action == said) for one, said in zip(told, says, strict=True)]
    earned = math.fsum(w * one.reward for w, one in zip(weights, told, strict=True))
    total = math.fsum(weights)
    counts = [1.0 if one.right else w for w, one in zip(weights, told, strict=True)]
    return Value(
        ips=earned / max(len(told), 1),
        snips=min(earned / total, 1.0) if total else 0.0,
        dr=math.fsum(_doubly_robust(told, says, weights)) / max(len(told), 1),
        ess=math.fsum(counts) ** 2 / math.fsum(c * c for c in counts) if any(counts) else 0.0,
    )


def weight(one: Told) -> float:
    return min(1.0 / one.chance, CLIP)


def _doubly_robust(told: Sequence[Told], says: Sequence[str], weights: Sequence[float]) -> Iterator[float]:
    before, count = 0.0, 0
    for one, said, w in zip(told, says, weights, strict=True):
        if one.right:
            yield float(said == one.right)
            continue
        expected = before / count if count else 0.5
        yield expected + w * (one.reward - expected)
        before, count = before + one.reward, count + 1


def _differences(told: Sequence[Told], one: Sequence[str], other: Sequence[str]) -> Iterator[float]:
    """What `other` earned more than `one`, a decision: on average no more than that, though weights are cut off, for only
    what speaks for `other` is weighted: its reward, and what `one` failed to get."""
    for said, a, b in zip(told, one, other, strict=True):
        if a == b:
            yield 0.0
        elif said.right:
            yield float(b == said.right) - float(a == said.right)
        else:
            w = weight(said)
            yield w * said.reward * (b == said.action) + w * (1.0 - said.reward) * (a == said.action) - 1.0


def lower_bound(values: Sequence[float], low: float, high: float, alpha: float = ALPHA) -> float:
    """The mean of values in [low, high] (more than `high` counts as `high`) lies above this, with a chance of at least
    1 - alpha, however often one looks while they come. A mean is ruled out once a bet against it, whose wealth cannot be
    expected to grow if it is true, has made 1 / alpha of it."""
    means = np.linspace(0.0, 1.0, STEPS, endpoint=False)
    most = BRAVE / np.maximum(means, 1e-9)
    wealth, best = np.zeros(STEPS), np.zeros(STEPS)  # natural logarithms
    total, spread = 0.5, 0.25  # as if one value in the middle had come before
    for number, one in enumerate((min(value, high) - low) / (high - low) for value in values):
        bet = math.sqrt(2 * math.log(1 / alpha) / (spread * math.log(number + 2)))
        wealth += np.log1p(np.minimum(bet, most) * (one - means))
        best = np.maximum(best, wealth)
        total += one
        spread += (one - total / (number + 2)) ** 2
    ruled_out = int(np.cumprod(best >= math.log(1 / alpha)).sum())
    return float(low + (high - low) * means[max(ruled_out - 1, 0)])
