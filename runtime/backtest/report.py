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
from runtime.config import PolicyConfig
from runtime.learning import certainty

HARM = 0.01  # accuracy
LEVELS = (0.5, 0.7, 0.8, 0.9)
ASK_BELOW = PolicyConfig().ask_below
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
            "memory_off": {
                "ece": certainty.calibration_error(last.sure_off, last.right_off),
                "brier": certainty.brier(last.sure_off, last.right_off),
            },
        },
        "forgetting": forgetting(points, domain_ends(stream)),
        "abstention": _abstention(last, outside),
        "corrections_to": {str(level): _first(points, level) for level in LEVELS},
        "collateral_flips_per_correction": _flips(points, judged),
        "rejected_releases": sum(cycle["verdict"] == "rejected" for cycle in cycles),
        "harmful_releases": harmful(points),
    }


def harmful(points: Sequence[dict[str, Any]]) -> int:
    """Releases after which the held-out rows were answered worse than at the point before, by more than a point."""
    pairs = itertools.pairwise(points)
    return sum(a["adapter"] != b["adapter"] and b["accuracy"] < a["accuracy"] - HARM for a, b in pairs)


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
    """Asked: the share of decisions it is least sure of, within the budget. With rows from outside, whatever they are:
    half of them (and half of those inside) choose the chance below which it refuses, and the other halves are scored."""
    ordered = sorted(zip(last.chance, last.right, strict=True), reverse=True)
    kept = ordered[: len(ordered) - int(QUESTIONS * len(ordered))]
    asked, hits = len(ordered) - len(kept), sum(hit for _, hit in kept)
    found: dict[str, Any] = {
        "asked": asked / len(ordered),
        "answered_accuracy": hits / len(kept),
        "helped_accuracy": (hits + asked) / len(ordered),  # who is asked knows
        "by_default": _refusing(ASK_BELOW, last.chance, last.right, outside.chance if outside else []),
        "plausible": _plausible(last),
    }
    if outside is None:
        return found
    inside_score, outside_score = last.chance[1::2], outside.chance[1::2]
    limit = _balanced(last.chance[::2], outside.chance[::2])
    return found | {
        "auroc": certainty.area(inside_score, outside_score),
        **_refusing(limit, inside_score, last.right[1::2], outside_score),
    }


def _refusing(
    limit: float, inside: Sequence[float], right: Sequence[bool], outside: Sequence[float]
) -> dict[str, float | None]:
    """What comes of refusing, or asking, below a chance. In-scope accuracy counts a refusal as wrong."""
    return {
        "limit": limit,
        "in_scope_refused": sum(p < limit for p in inside) / len(inside),
        "in_scope_accuracy": sum(hit and p >= limit for p, hit in zip(inside, right, strict=True)) / len(inside),
        "refusal_recall": sum(p < limit for p in outside) / len(outside) if outside else None,
    }


def _plausible(last: Judged) -> dict[str, float] | None:
    """How often the conformal sets hold the right action, and how large they are; None before there are any."""
    if not any(last.plausible):
        return None
    held = [gold in kept for gold, kept in zip(last.gold, last.plausible, strict=True)]
    return {"coverage": sum(held) / len(held), "size": sum(map(len, last.plausible)) / len(held)}


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
