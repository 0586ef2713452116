"""What follows from all points of a backtest: forgetting, calibration, refusals, how many corrections it took, flips.

Forgetting as in continual learning: R[i][j] = accuracy on domain j after domain i; backward transfer is the mean change of
a domain from when it was learnt to the end (Lopez-Paz and Ranzato 2017, arXiv 1706.08840), forgetting the mean fall from
its best.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from runtime.backtest.data import Line
from runtime.backtest.judged import Judged
from runtime.learning import certainty

LEVELS = (0.5, 0.7, 0.8, 0.9)
QUESTIONS = 0.1  # share of decisions that may be questions


def summary(
    points: Sequence[dict[str, Any]], judged: Sequence[Judged], cycles: Sequence[dict[str, Any]],
    outside: Judged | None, stream: Sequence[Line],
) -> dict[str, Any]:  # fmt: skip
    """The report's parts that need more than one point, or the last one alone."""
    last = judged[-1]
    return {
        "calibration": {
            "ece": certainty.calibration_error(last.sure, last.right),
            "brier": certainty.brier(last.sure, last.right),
        },
        "forgetting": forgetting(points, domain_ends(stream)),
        "abstention": _abstention(last, outside),
        "corrections_to": {str(level): _first(points, level) for level in LEVELS},
        "collateral_flips_per_correction": _flips(points, judged),
        "rejected_releases": sum(cycle["verdict"] == "rejected" for cycle in cycles),
    }


def forgetting(points: Sequence[dict[str, Any]], ends: dict[str, int]) -> dict[str, Any] | None:
    """`ends`: after how many events a domain is over, in their order. None unless several came one after the other."""
    stages = {domain: next((point for point in points if point["events"] >= end), None) for domain, end in ends.items()}
    if len(ends) < 2 or any(stage is None for stage in stages.values()):
        return None
    names = list(ends)
    matrix = [[stage["by_domain"].get(name) for name in names] for stage in stages.values() if stage is not None]
    if any(value is None for row in matrix for value in row):
        return None
    count = len(names)
    final = matrix[-1]
    learnt = [final[j] - matrix[j][j] for j in range(count - 1)]
    fallen = [max(matrix[i][j] for i in range(j, count - 1)) - final[j] for j in range(count - 1)]
    return {
        "domains": names,
        "matrix": matrix,
        "acc": sum(final) / count,
        "bwt": sum(learnt) / len(learnt),
        "forgetting": sum(fallen) / len(fallen),
    }


def domain_ends(stream: Sequence[Line]) -> dict[str, int]:
    """Where each domain is over, if they come one after the other; else nothing."""
    ends: dict[str, int] = {}
    runs = 0
    before = None
    for number, line in enumerate(stream, start=1):
        runs += line.domain != before
        before = line.domain
        ends[line.domain] = number
    return ends if runs == len(ends) else {}


def _abstention(last: Judged, outside: Judged | None) -> dict[str, Any]:
    """Asked: the share of decisions it is least sure of, within the budget. With rows from outside, half of them (and
    half of those inside) choose the certainty below which it refuses, and the other halves are scored."""
    ordered = sorted(zip(last.sure, last.right, strict=True), reverse=True)
    kept = ordered[: len(ordered) - int(QUESTIONS * len(ordered))]
    found: dict[str, Any] = {
        "asked": 1 - len(kept) / len(ordered),
        "accuracy_answered": sum(hit for _, hit in kept) / len(kept),
    }
    if outside is None:
        return found
    inside_tune, inside_score = last.sure[::2], last.sure[1::2]
    outside_tune, outside_score = outside.sure[::2], outside.sure[1::2]
    limit = _balanced(inside_tune, outside_tune)
    answered = [hit and p >= limit for p, hit in zip(inside_score, last.right[1::2], strict=True)]
    return found | {
        "auroc": certainty.area(inside_score, outside_score),
        "refusal_recall": sum(p < limit for p in outside_score) / len(outside_score),
        "in_scope_accuracy": sum(answered) / len(answered),
        "limit": limit,
    }


def _balanced(inside: Sequence[float], outside: Sequence[float]) -> float:
    """The certainty that tells both apart best: most of the inside above it and of the outside below it."""
    return max(
        sorted({*inside, *outside}),
        key=lambda limit: (
            sum(p >= limit for p in inside) / len(inside) + sum(p < limit for p in outside) / len(outside)
        ),
    )


def _first(points: Sequence[dict[str, Any]], level: float) -> int | None:
    """Corrections until the first point that was so accurate."""
    return next((point["corrections"] for point in points if point["accuracy"] >= level), None)


def _flips(points: Sequence[dict[str, Any]], judged: Sequence[Judged]) -> float | None:
    """Share of held-out decisions that a correction turned from right to wrong, on average."""
    lost = sum(
        sum(a and not b for a, b in zip(before.right, after.right, strict=True))
        for before, after in itertools.pairwise(judged)
    )
    corrections = points[-1]["corrections"]
    return lost / len(judged[-1].right) / corrections if corrections else None
