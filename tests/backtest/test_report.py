"""What follows from several points, against examples worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runtime.backtest import report
from runtime.backtest.data import Line
from runtime.backtest.judged import Judged
from runtime.learning.trust import Belief
from runtime.messages import Action
from runtime.policy.protocol import Row

YES, NO = Action(tool="yes"), Action(tool="no")


def judged(right: list[bool], sure: list[float]) -> Judged:
    rows, beliefs = [], []
    for hit, p in zip(right, sure, strict=True):
        chosen, other = (YES, NO) if hit else (NO, YES)
        logs = (math.log(p), math.log(max(1 - p, 1e-9)))
        rows.append(Row(actions=[chosen, other], log_probs=list(logs), chosen=chosen, log_p=logs[0]))
        beliefs.append(Belief((chosen, other), logs, (), logs))
    return Judged([YES] * len(right), rows, beliefs, [None] * len(right))


def point(events: int, corrections: int, accuracy: float, **domains: float) -> dict[str, Any]:
    return {
        "events": events,
        "corrections": corrections,
        "adapter": f"v{events}",
        "accuracy": accuracy,
        "by_domain": domains,
    }


def test_domains_that_come_one_after_the_other_have_ends() -> None:
    lines = [Line(input="x", output="o", domain=domain) for domain in "aabbb"]
    assert report.domain_ends(lines) == {"a": 2, "b": 5}
    assert report.domain_ends([*lines, lines[0]]) == {}


def test_forgetting_is_what_was_known_and_is_not_any_more() -> None:
    points = [point(2, 1, 0.5, a=0.9, b=0.1), point(5, 2, 0.6, a=0.7, b=0.8)]
    found = report.forgetting(points, {"a": 2, "b": 5})
    assert found is not None
    assert found["matrix"] == [[0.9, 0.1], [0.7, 0.8]]
    assert (found["acc"], found["bwt"], found["forgetting"]) == pytest.approx((0.75, -0.2, 0.2))
    assert report.forgetting(points[:1], {"a": 2, "b": 5}) is None


def test_flips_are_counted_per_correction() -> None:
    points = [point(0, 0, 0.4), point(9, 5, 0.75)]
    before, after = judged([True, True, False, False], [0.9] * 4), judged([False, True, True, True], [0.9] * 4)
    found = report.summary(points, [before, after], [{"verdict": "rejected"}, {"verdict": "released"}], None, [])
    assert found["collateral_flips_per_correction"] == pytest.approx(1 / 4 / 5)
    assert found["corrections_to"] == {"0.5": 5, "0.7": 5, "0.8": None, "0.9": None}
    assert found["rejected_releases"] == 1


def test_refusals_are_scored_on_the_half_that_chose_nothing() -> None:
    inside = judged([True] * 20, [0.9] * 20)
    outside = judged([False] * 10, [0.6] * 10)
    found = report.summary([point(0, 0, 1.0)], [inside], [], outside, [])["abstention"]
    assert (found["auroc"], found["refusal_recall"], found["in_scope_accuracy"]) == (1.0, 1.0, 1.0)


def test_it_asks_where_it_is_least_sure() -> None:
    found = report.summary([point(0, 0, 0.9)], [judged([True] * 9 + [False], [0.9] * 9 + [0.5])], [], None, [])
    found = found["abstention"]
    assert (found["asked"], found["answered_accuracy"], found["helped_accuracy"]) == (0.1, 1.0, 1.0)
    assert found["by_default"] == {
        "limit": 0.5, "in_scope_refused": 0.0, "in_scope_accuracy": 0.9, "refusal_recall": None,
    }  # fmt: skip
    assert found["plausible"] is None


def test_the_weights_are_judged_for_calibration_too() -> None:
    found = report.summary([point(0, 0, 1.0)], [judged([True, False], [0.8, 0.8])], [], None, [])["calibration"]
    assert found["ece"] == pytest.approx(0.3)
    assert found["memory_off"] == {"ece": pytest.approx(0.3), "brier": pytest.approx((0.04 + 0.64) / 2)}


def test_a_release_is_harmful_where_it_answers_fewer_held_out_rows() -> None:
    def at(adapter: str, accuracy: float) -> dict[str, object]:
        return {"adapter": adapter, "accuracy": accuracy}

    assert report.harmful([at("base", 0.5), at("a", 0.7), at("b", 0.68)]) == 1
    assert report.harmful([at("base", 0.5), at("a", 0.7), at("b", 0.695)]) == 0, "a point is within chance"
    assert report.harmful([at("a", 0.7), at("a", 0.6)]) == 0, "nothing was released"
