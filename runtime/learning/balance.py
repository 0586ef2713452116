"""Curated examples -> how much each counts: no answer and no person drowns the others. The total stays what it was.

A set in which all answers are about as frequent, taught by one or two people, is left as it is.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from msgspec.structs import replace

from runtime.learning.duplicates import answer
from runtime.messages import Example

LEAST = (
    1 / 3
)  # of what it would count: neither a cap nor a balance takes more away, or a newcomer's word would count for hundreds
SEVERAL = 3  # people who must have taught before anyone's share is limited


def even(examples: Sequence[Example], ratio: float) -> list[Example]:
    """Of an answer with more than `ratio` times as many examples as its scope's answers have (median), each counts less: by
    the root of the surplus. 0 leaves all as they are."""
    if not ratio:
        return list(examples)
    counts = Counter((example.scope, answer(example.action)) for example in examples)
    by_scope: defaultdict[str, list[int]] = defaultdict(list)
    for (scope, _), count in counts.items():
        by_scope[scope].append(count)
    usual = {scope: ratio * median(found) for scope, found in by_scope.items()}
    return _scaled(
        examples, lambda e: max(LEAST, min(1.0, math.sqrt(usual[e.scope] / counts[e.scope, answer(e.action)])))
    )


def capped(examples: Sequence[Example], cap: float) -> list[Example]:
    """Nobody has more than the share `cap` of the whole weight, where at least SEVERAL people teach."""
    weights = weight_by_source(examples)
    if len(weights) < SEVERAL:
        return list(examples)
    limit = _limit(sorted(weights.values(), reverse=True), max(cap, 1 / len(weights)))
    return _scaled(examples, lambda e: max(LEAST, min(1.0, limit / weights[e.source])))


def _limit(weights: Sequence[float], cap: float) -> float:
    """The weight to which the greatest are cut down, so that each has the share `cap` of what is left to all. `weights` fall."""
    rest = sum(weights)
    for cut, weight in enumerate(weights):
        limit = cap * rest / (1 - cut * cap)
        if weight <= limit:
            return limit
        rest -= weight
    return weights[-1]  # only rounding leads here


def weight_by_source(examples: Iterable[Example]) -> dict[str, float]:
    """The weight of all that each one said."""
    found: defaultdict[str, float] = defaultdict(float)
    for example in examples:
        found[example.source] += example.weight
    return dict(found)


def _scaled(examples: Sequence[Example], factor: Callable[[Example], float]) -> list[Example]:
    """Each weight times its factor, and all so that their sum is what it was."""
    weights = [example.weight * factor(example) for example in examples]
    before = sum(example.weight for example in examples)
    again = before / sum(weights) if weights else 1.0
    return [replace(example, weight=weight * again) for example, weight in zip(examples, weights, strict=True)]
