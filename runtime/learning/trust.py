"""Weights and memory -> one belief: a sum of what each says, by how far each has shown that it can be trusted.

    score(a) = model * log p(a) + ridge * r(a) + near * n(a)        p = softmax(score)

log p: the language model's; r, n: the memory's (`memory.Recalled`), r raised for what was taught less often than other actions
and lowered for what was taught more often (Menon et al. 2021, arXiv 2007.07314): the first lesson of an answer counts. An action
that nobody taught gets what the taught ones leave of r, and the largest n; and while there are few lessons in a scope, r and n
count less: situations of one room are so alike that a single lesson would answer for all of them. On an action that people taught
only after the weights were trained, the weights have no vote: it gets their best log p, and the memory decides (trained weights
are sure that it is wrong, for it never was right). The base model was taught nothing, so it has no vote on whatever was taught,
and half of what is left for the rest: trained weights may put a new answer together, it can only guess. Against the first few
lessons of a scope it still speaks. How much each counts is learnt, for every version of the
weights anew, on feedback that those weights were not trained on, with the memory as it would be without it; never on
anything that accuracy is reported on. Since it maximises likelihood, what comes out is calibrated as well as three numbers can; so it is
for the weights alone, by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.learning.memory import Recalled
from runtime.messages import Action, Message

FEW = 10  # lessons of a scope by which the memory has half its weight
LEFT = 0.5  # of what the taught ones leave of r: the part of an action that nobody taught, where the base model decides
RARE = 0.5  # power of an action's share of the lessons by which r is divided: 0 = as it is, 1 = as if all were taught alike
UNSEEN = -20.0  # nats, at least: what the model gives an action that it did not even consider
SPREAD = np.array([0.3, 8.0, 4.0])  # how far the learnt weights may be from what is assumed: a standard deviation
ALONE = 0.2  # the same for the weights alone, which were trained to be likely themselves
STEPS, SMALL = 30, 1e-6
Numbers = NDArray[np.float64]


class Knowing(Message, frozen=True, kw_only=True):
    """What is known of where both are right (`knowing`): the numbers of its chance, and what was missed where it counted."""

    bias: float = 0.7
    model: float = 0.8
    memory: float = 0.8
    novel: float = -0.8
    missed: tuple[float, ...] = ()  # 1 - p of the right action, on feedback not trained on, in order
    missed_alone: tuple[float, ...] = ()  # the same without the memory


class Trust(Message, frozen=True, kw_only=True):
    """What a nat of the model, a whole `ridge` and a whole `near` are worth, in nats; and a nat of the model where the memory
    is silent: its inverse temperature (Guo et al. 2017, arXiv 1706.04599)."""

    model: float = 0.6
    ridge: float = 10.0
    near: float = 6.0
    alone: float = 1.0
    fading: bool = (
        False  # against what was taught, the model counts half as much with every further lesson of the scope
    )
    knowing: Knowing = Knowing()


ADAPTER = Trust()  # what is assumed of trained weights until there is feedback that says more
BASE = Trust(model=0.5, fading=True)  # of weights that were never told what is right here


@dataclass(frozen=True)
class Belief:
    """One situation: the candidates and what each judge says of them, as log-probabilities (nats)."""

    actions: tuple[Action, ...]
    log_model: tuple[float, ...]
    log_memory: tuple[float, ...]  # () = the memory had nothing to say
    log_both: tuple[float, ...]
    novelty: float = 1.0  # in (0, 1]: 1 = nothing like it was ever taught
    untaught: tuple[int, ...] = ()  # candidates on which the model abstains: it was never taught them
    taught: tuple[int, ...] = ()  # candidates of which the memory knows anything

    @property
    def heard(self) -> float:
        """What the model says of the best, or of its own best where it abstains."""
        return max(self.log_model) if self.best in self.untaught else self.log_model[self.best]

    @property
    def best(self) -> int:
        return max(range(len(self.actions)), key=self.log_both.__getitem__)

    @property
    def chosen(self) -> Action:
        return self.actions[self.best]


@dataclass(frozen=True)
class Case:
    """One situation whose right answer is known: features [K, 3] of its candidates (log p, ridge, near)."""

    features: Numbers
    right: int


def believe(actions: Sequence[Action], log_probs: Sequence[float], recalled: Recalled | None, trust: Trust) -> Belief:
    """`actions` with the model's log-probabilities; what the memory knows beside them joins in."""
    if recalled is None:
        return Belief(tuple(actions), tuple(log_probs), (), sharpened(log_probs, trust.alone))
    every, features = joined(actions, log_probs, recalled, LEFT if trust.fading else 1.0)
    memory = features[:, 1:] @ [trust.ridge, trust.near]
    taught, untaught = _places(every, recalled.actions), _places(every, recalled.untaught)
    silent, word = (taught, 0.5 ** (recalled.lessons - 1)) if trust.fading else (untaught, 0.0)
    votes = features[:, 0].copy()
    votes[silent] += (1.0 - word) * (votes.max() - votes[silent])
    both = trust.model * votes + memory
    return Belief(
        every, _plain(features[:, 0]), _plain(_normalised(memory)), _plain(_normalised(both)), recalled.novelty,
        tuple(untaught), tuple(taught),
    )  # fmt: skip


def sharpened(log_probs: Sequence[float], power: float) -> tuple[float, ...]:
    """Log-probabilities by a power; what is left for all that was not considered takes part as one more."""
    if power == 1.0:
        return tuple(log_probs)
    rest = 1.0 - math.fsum(map(math.exp, log_probs))
    logs = np.array([*log_probs, *([math.log(rest)] if rest > math.exp(UNSEEN) else [])]) * power
    return _plain(_normalised(logs)[: len(log_probs)])


def joined(
    actions: Sequence[Action], log_probs: Sequence[float], recalled: Recalled, left: float = 1.0
) -> tuple[tuple[Action, ...], Numbers]:
    """All candidates of both, and their features [K, 3]. `left`: of what the taught ones leave of r, for the others."""
    place = {_key(action): i for i, action in enumerate(actions)}
    extra = [i for i, action in enumerate(recalled.actions) if _key(action) not in place]
    rest = max(1.0 - math.fsum(map(math.exp, log_probs)), 0.0)
    missed = max(math.log(rest), UNSEEN) if rest > 0 else UNSEEN
    features = np.zeros((len(actions) + len(extra), 3))
    features[:, 0] = [*log_probs, *[missed] * len(extra)]
    features[:, 1:] = left * max(1.0 - float(recalled.ridge.sum()), 0.0), recalled.near.max()
    columns = {_key(action): i for i, action in enumerate(recalled.actions)}
    every = (*actions, *(recalled.actions[i] for i in extra))
    ridge = recalled.ridge * (recalled.lessons / len(recalled.actions) / np.maximum(recalled.taught, 1.0)) ** RARE
    for row, action in enumerate(every):
        if (i := columns.get(_key(action))) is not None:
            features[row, 1:] = ridge[i], recalled.near[i]
    features[:, 1:] *= recalled.lessons / (recalled.lessons + FEW)
    return every, features


def case(
    actions: Sequence[Action], log_probs: Sequence[float], recalled: Recalled | None, right: Action
) -> Case | None:
    """None where the right answer is no candidate, or the memory has nothing to say: nothing is learnt from that."""
    if recalled is None:
        return None
    every, features = joined(actions, log_probs, recalled)
    keys = [_key(action) for action in every]
    return Case(features, keys.index(_key(right))) if _key(right) in keys else None


def fit(cases: Sequence[Case], assumed: Trust = ADAPTER, spread: Numbers = SPREAD) -> Trust:
    """The likeliest trust, given what is assumed (a normal prior), none of it negative: Newton's method, its steps halved
    until they help."""
    prior = np.array([assumed.model, assumed.ridge, assumed.near])
    if not cases:
        return assumed
    features, there = _stacked(cases)
    right = np.arange(len(cases)), [case.right for case in cases]

    def worth(weights: Numbers) -> float:
        logs = _normalised(np.where(there, features @ weights, -np.inf))
        return float(logs[right].sum() - (((weights - prior) / spread) ** 2).sum() / 2)

    weights, best = prior.copy(), worth(prior)
    for _ in range(STEPS):
        p = np.exp(_normalised(np.where(there, features @ weights, -np.inf)))
        mean = np.einsum("nk,nkf->nf", p, features)
        gradient = (features[right] - mean).sum(0) + (prior - weights) / spread**2
        curvature = np.einsum("nk,nkf,nkg->fg", p, features, features) - mean.T @ mean + np.diag(1 / spread**2)
        step = np.linalg.solve(curvature, gradient)
        while np.abs(step).max() > SMALL and (now := worth(np.maximum(weights + step, 0.0))) <= best:
            step /= 2
        if np.abs(step).max() <= SMALL:
            break
        weights, best = np.maximum(weights + step, 0.0), now
    return Trust(model=float(weights[0]), ridge=float(weights[1]), near=float(weights[2]))


def alone(cases: Sequence[Case]) -> float:
    """The inverse temperature of the weights without the memory: the same fit with nothing said by it."""
    silent = [Case(case.features * [1.0, 0.0, 0.0], case.right) for case in cases]
    return fit(silent, Trust(model=1.0), np.array([ALONE, 1.0, 1.0])).model


def _stacked(cases: Sequence[Case]) -> tuple[Numbers, NDArray[np.bool_]]:
    """Features [N, K, 3] of all cases, and which of them there are."""
    widest = max(len(case.features) for case in cases)
    features, there = np.zeros((len(cases), widest, 3)), np.zeros((len(cases), widest), bool)
    for i, case in enumerate(cases):
        features[i, : len(case.features)], there[i, : len(case.features)] = case.features, True
    return features, there


def trust_of(scores: Mapping[str, object]) -> Trust:
    """What an adapter's manifest says, or what is assumed."""
    found = scores.get("trust")
    return msgspec.convert(found, Trust) if found else ADAPTER


def _normalised(scores: Numbers) -> Numbers:
    """Log-probabilities along the last axis."""
    shifted = scores - scores.max(-1, keepdims=True)
    out: Numbers = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out


def _plain(numbers: Numbers) -> tuple[float, ...]:
    return tuple(numbers.tolist())


def _places(every: Sequence[Action], some: Sequence[Action]) -> list[int]:
    keys = {_key(action) for action in some}
    return [i for i, action in enumerate(every) if keys and _key(action) in keys]


def _key(action: Action) -> bytes:
    return msgspec.json.encode(action, order="sorted")
