"""Does it know what it does not know? Calibration of stated probabilities, and how well refusals are chosen.

Definitions: expected calibration error with equal-width bins (Guo et al. 2017, arXiv 1706.04599); Brier score of the chosen
answer; area under the ROC curve as the chance that a random right refusal is more doubtful than a random answer (ties half).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

BINS = 15


def calibration_error(sure: Sequence[float], right: Sequence[bool]) -> float:
    """Mean distance between stated probability and share of right answers, over bins, weighted by their size."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for p, hit in zip(sure, right, strict=True):
        bins[min(int(p * BINS), BINS - 1)].append((p, hit))
    gaps = (abs(sum(p for p, _ in part) - sum(hit for _, hit in part)) for part in bins)
    return sum(gaps) / len(sure) if sure else 0.0


def brier(sure: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of the chosen answer's probability from what came true."""
    return sum((p - hit) ** 2 for p, hit in zip(sure, right, strict=True)) / len(sure) if sure else 0.0


def area(inside: Sequence[float], outside: Sequence[float]) -> float | None:
    """Chance that something inside is surer than something outside; None if there is nothing of either."""
    if not inside or not outside:
        return None
    ordered = sorted([(p, True) for p in inside] + [(p, False) for p in outside])
    wins, below, at = 0.0, 0, 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end][0] == ordered[at][0]:
            end += 1
        here = sum(not within for _, within in ordered[at:end])
        wins += (end - at - here) * (below + here / 2)
        below, at = below + here, end
    return wins / (len(inside) * len(outside))


def threshold(sure: Sequence[float], right: Sequence[bool], wanted: float) -> float:
    """The smallest certainty such that of the answers at least so sure a share of `wanted` is right; above 1 if none is."""
    best, hits, count = 1.1, 0, 0
    for p, tied in itertools.groupby(sorted(zip(sure, right, strict=True), reverse=True), key=lambda pair: pair[0]):
        for _, hit in tied:
            hits, count = hits + hit, count + 1
        if hits / count >= wanted:
            best = p
    return best
