"""Figures by hand."""

from __future__ import annotations

import math

import pytest

from runtime.learning import scores

GOLD, SAID = ["a", "a", "a", "b"], ["a", "a", "b", "c"]


def test_accuracy_and_balanced_accuracy() -> None:
    assert scores.accuracy(GOLD, SAID) == 0.5
    assert scores.balanced_accuracy(GOLD, SAID) == pytest.approx((2 / 3 + 0) / 2)
    assert scores.accuracy([], []) == scores.balanced_accuracy([], []) == 0.0


def test_macro_f1_counts_what_was_wrongly_said() -> None:
    assert scores.macro_f1(GOLD, SAID) == pytest.approx((2 * 2 / (3 + 2) + 0) / 2)


def test_log_loss_stays_finite_and_skips_the_silent() -> None:
    assert scores.log_loss([math.log(0.5), None]) == pytest.approx(math.log(2))
    assert scores.log_loss([-math.inf]) == -scores.LEAST_LOG_P
    assert scores.log_loss([None]) is None


def test_percentile_is_a_value_that_occurred() -> None:
    assert scores.percentile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert scores.percentile([5.0, 1.0, 3.0], 0.95) == 5.0
    assert scores.percentile([], 0.5) is None
