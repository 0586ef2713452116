"""Does it know this? How likely what it would do is right, counting what nobody ever taught; and what else might be.

    chance  = sigmoid(bias + model * log p_model(best) + memory * log p_memory(best) + novel * log novelty)
    plausible = the actions with p >= 1 - q, q such that on feedback not trained on the right one was missed a share `miss`

The chance is learnt with every version of the weights, on the feedback that they were not trained on: once as it is, and once
with its answer left out of both judges (`Memory.unheard`), which makes of it a situation from outside, where whatever would be
done is wrong. So no examples of what is to be refused are needed. The set is split conformal prediction with 1 - p as its score
(Vovk et al. 2005; Sadinle et al. 2019, arXiv 1609.00451): it holds the right action with chance 1 - miss, if what comes is like
what came.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from runtime.learning import trust
from runtime.learning.memory import Memory, Recalled
from runtime.learning.trust import Belief, Knowing, Trust
from runtime.messages import Action

OUTSIDE = 0.3  # what one situation made from outside counts beside one as it came
ASSUMED = Knowing()
SPREAD = np.array([2.0, 0.5, 0.5, 0.5])  # how far the learnt numbers may be from what is assumed: a standard deviation
STEPS, SMALL = 30, 1e-6
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """Feedback that the weights were not trained on: what they say, and the memory without it, and without its answer."""

    actions: tuple[Action, ...]
    log_probs: tuple[float, ...]
    right: Action
    recalled: Recalled | None
    unheard: Recalled | None


def chance(belief: Belief, knowing: Knowing) -> float:
    """That the best is right, in a world where some things were never taught. In [0, 1]."""
    if not belief.log_memory:
        return math.exp(belief.log_both[belief.best])
    return 1 / (1 + math.exp(-float(_looks(belief) @ _numbers(knowing))))


def plausible(belief: Belief, knowing: Knowing, miss: float) -> tuple[Action, ...]:
    """The conformal set, likeliest first; never empty. () where there was too little to learn it from: it takes
    1 / miss - 1 situations at least."""
    missed = knowing.missed if belief.log_memory else knowing.missed_alone
    place = math.ceil((len(missed) + 1) * (1 - miss))
    if not 1 <= place <= len(missed):
        return ()
    least = 1 - missed[place - 1]
    order = sorted(range(len(belief.actions)), key=belief.log_both.__getitem__, reverse=True)
    kept = [i for i in order if math.exp(belief.log_both[i]) >= least]
    return tuple(belief.actions[i] for i in kept or order[:1])


def seen(actions: Sequence[Action], log_probs: Sequence[float], right: Action, lesson: str, memory: Memory) -> Seen:
    """Held-out feedback `lesson`, of which the memory knows."""
    return Seen(tuple(actions), tuple(log_probs), right, memory.without(lesson), memory.unheard(lesson))


def fit(seen: Sequence[Seen]) -> Trust:
    """All that is learnt from what the weights were not trained on: who is believed how far, and what that is worth."""
    found = [trust.case(one.actions, one.log_probs, one.recalled, one.right) for one in seen]
    cases = [case for case in found if case is not None]
    trusted = replace(trust.fit(cases), alone=trust.alone(cases))
    return replace(trusted, knowing=learn(seen, trusted))


def learn(seen: Sequence[Seen], trusted: Trust) -> Knowing:
    """With memory and weights believed as `trusted` says."""
    alone = [trust.believe(one.actions, one.log_probs, None, trusted) for one in seen]
    fused = [
        (one, trust.believe(one.actions, one.log_probs, one.recalled, trusted))
        for one in seen
        if one.recalled is not None
    ]
    outside = [belief for one, _ in fused if (belief := _unheard(one, trusted)) is not None]
    looks = [_looks(belief) for belief in (*(belief for _, belief in fused), *outside)]
    right = [belief.chosen == one.right for one, belief in fused] + [False] * len(outside)
    counts = np.array([1.0] * len(fused) + [OUTSIDE] * len(outside))
    learnt = _logistic(np.array(looks), np.array(right), counts) if looks else _numbers(ASSUMED)
    bias, model, memory, novel = (float(number) for number in learnt)
    return Knowing(
        bias=bias, model=model, memory=memory, novel=novel,
        missed=tuple(sorted(1 - _p(belief, one.right) for one, belief in fused)),
        missed_alone=tuple(sorted(1 - _p(belief, one.right) for one, belief in zip(seen, alone, strict=True))),
    )  # fmt: skip


def _unheard(one: Seen, trusted: Trust) -> Belief | None:
    """The same situation for judges who never heard of its answer."""
    if one.unheard is None:
        return None
    kept = [(a, p) for a, p in zip(one.actions, one.log_probs, strict=True) if a != one.right]
    left = math.fsum(math.exp(p) for _, p in kept)
    if not left:
        return None
    actions, logs = [a for a, _ in kept], [p - math.log(left) for _, p in kept]
    return trust.believe(actions, logs, one.unheard, trusted)


def _looks(belief: Belief) -> Numbers:
    best = belief.best
    return np.array([1.0, belief.heard, belief.log_memory[best], math.log(max(belief.novelty, SMALL))])


def _numbers(knowing: Knowing) -> Numbers:
    return np.array([knowing.bias, knowing.model, knowing.memory, knowing.novel])


def _p(belief: Belief, right: Action) -> float:
    return math.exp(belief.log_both[belief.actions.index(right)]) if right in belief.actions else 0.0


def _logistic(looks: Numbers, right: NDArray[np.bool_], counts: Numbers) -> Numbers:
    """The likeliest numbers, given what is assumed (a normal prior): Newton's method, its steps halved until they help."""
    prior, spread = _numbers(ASSUMED), SPREAD

    def worth(numbers: Numbers) -> float:
        logits = np.where(right, 1, -1) * (looks @ numbers)
        return float(-(counts * np.logaddexp(0, -logits)).sum() - (((numbers - prior) / spread) ** 2).sum() / 2)

    numbers, best = prior, worth(prior)
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(looks @ numbers)))
        gradient = looks.T @ (counts * (right - p)) + (prior - numbers) / spread**2
        curvature = (looks * (counts * p * (1 - p))[:, None]).T @ looks + np.diag(1 / spread**2)
        step = np.linalg.solve(curvature, gradient)
        while np.abs(step).max() > SMALL and (now := worth(numbers + step)) <= best:
            step /= 2
        if np.abs(step).max() <= SMALL:
            break
        numbers, best = numbers + step, now
    return numbers
