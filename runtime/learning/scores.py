"""Right or wrong, summed up: accuracy, macro-F1, balanced accuracy, log-loss, percentiles."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

LEAST_LOG_P = -50.0  # nats; one impossible answer must not make a mean infinite


def accuracy(gold: Sequence[Hashable], said: Sequence[Hashable]) -> float:
    """Share of right answers, 0 if there are none."""
    return sum(g == s for g, s in zip(gold, said, strict=True)) / len(gold) if gold else 0.0


def balanced_accuracy(gold: Sequence[Hashable], said: Sequence[Hashable]) -> float:
    """Mean recall over the answers that occur in `gold`."""
    hits: defaultdict[Hashable, list[bool]] = defaultdict(list)
    for g, s in zip(gold, said, strict=True):
        hits[g].append(g == s)
    return sum(sum(row) / len(row) for row in hits.values()) / len(hits) if hits else 0.0


def macro_f1(gold: Sequence[Hashable], said: Sequence[Hashable]) -> float:
    """Mean F1 over the answers that occur in `gold`."""
    right = Counter(g for g, s in zip(gold, said, strict=True) if g == s)
    golden, spoken = Counter(gold), Counter(said)
    rows = [2 * right[c] / (golden[c] + spoken[c]) for c in golden]
    return sum(rows) / len(rows) if rows else 0.0


def log_loss(log_p: Sequence[float | None]) -> float | None:
    """Mean negative log-probability of the right answers, in nats; None where no model said one."""
    known = [max(value, LEAST_LOG_P) if math.isfinite(value) else LEAST_LOG_P for value in log_p if value is not None]
    return -sum(known) / len(known) if known else None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which `share` of them lie (nearest rank); None of nothing."""
    if not values:
        return None
    return sorted(values)[min(len(values) - 1, max(0, math.ceil(share * len(values)) - 1))]
