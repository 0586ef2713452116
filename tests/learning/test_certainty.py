"""Certainty against its definitions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.learning.certainty import area, brier, calibration_error, threshold

CHANCES = st.lists(st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.8, 1.0]), min_size=1, max_size=12)


@given(CHANCES, CHANCES)
def test_area_is_the_chance_to_be_surer(inside: list[float], outside: list[float]) -> None:
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(inside, outside))
    assert area(inside, outside) == pytest.approx(wins / len(inside) / len(outside))


def test_area_of_nothing_is_unknown() -> None:
    assert area([], [0.3]) is None


def test_stated_chances_that_come_true_are_calibrated() -> None:
    sure = [0.75] * 4 + [0.5] * 2
    right = [True, True, True, False, True, False]
    assert calibration_error(sure, right) == pytest.approx(0.0)
    assert calibration_error([1.0, 1.0], [True, False]) == pytest.approx(0.5)


def test_brier_is_zero_for_sure_and_right() -> None:
    assert brier([1.0, 0.0], [True, False]) == 0.0
    assert brier([1.0], [False]) == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.floats(0.3, 1.0))
def test_above_the_threshold_enough_are_right(rows: list[tuple[float, bool]], wanted: float) -> None:
    limit = threshold([p for p, _ in rows], [hit for _, hit in rows], wanted)
    answered = [hit for p, hit in rows if p >= limit]
    assert limit > 1 or sum(answered) / len(answered) >= wanted
