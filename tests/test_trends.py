"""Trends and differences: told where there is one, seldom where there is none, and never from a handful."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.trends import ENOUGH, LEAST, difference, trend

OPPOSITE = {"rising": "falling", "falling": "rising"}
FIXED = settings(derandomize=True, deadline=None)
VALUES = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), max_size=60)


def plain(values: list[float]) -> int:
    """Pairs that rise less pairs that fall, from the definition."""
    return sum((b > a) - (b < a) for i, a in enumerate(values) for b in values[i + 1 :])


@FIXED
@given(VALUES)
def test_a_trend_leans_the_way_its_pairs_do(values: list[float]) -> None:
    found = trend(values)
    if found.direction == "rising":
        assert plain(values) > 0
    if found.direction == "falling":
        assert plain(values) < 0
    assert (found.direction == "too few to tell") == (len(values) < LEAST)


@FIXED
@given(VALUES)
def test_backwards_it_goes_the_other_way(values: list[float]) -> None:
    forwards, backwards = trend(values), trend(values[::-1])
    assert backwards.direction == OPPOSITE.get(forwards.direction, forwards.direction)
    assert backwards.chance == pytest.approx(forwards.chance)


@FIXED
@given(VALUES, st.floats(0.1, 10), st.floats(-3, 3))
def test_only_the_order_of_the_values_counts(values: list[float], factor: float, shift: float) -> None:
    assert trend([factor * value + shift for value in values]).direction == trend(values).direction


def test_a_clear_rise_is_told_with_both_halves() -> None:
    found = trend([-1.0] * 8 + [1.0] * 8)
    assert (found.direction, found.before, found.after) == ("rising", -1.0, 1.0)
    assert trend([0.5] * 50).direction == "no trend"


def test_the_chance_is_that_of_kendalls_test() -> None:
    """Worked out by hand: ten rising values have S = 45 and a variance of 125, so z = 44 / 11.18."""
    assert trend([float(n) for n in range(10)]).chance == pytest.approx(8.3e-5, rel=0.02)


def test_without_a_trend_one_is_seldom_told() -> None:
    drawn = random.Random(7)
    told = [trend([drawn.choice([-1.0, 0.0, 1.0]) for _ in range(40)]).direction != "no trend" for _ in range(400)]
    assert sum(told) / len(told) < 0.07


@FIXED
@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_more_here_is_fewer_there(now: int, not_now: int, before: int, not_before: int) -> None:
    found = difference(now, now + not_now, before, before + not_before)
    other = difference(before, before + not_before, now, now + not_now)
    assert {"more": "fewer", "fewer": "more"}.get(found, found) == other
    few = min(now + not_now, before + not_before) < ENOUGH
    assert (found == "too few to tell") == few
    if found == "more":
        assert now * (before + not_before) > before * (now + not_now)


def test_alike_shares_are_seldom_told_apart_and_unlike_ones_mostly() -> None:
    drawn = random.Random(11)

    def told(p: float, q: float) -> float:
        rows = [
            (sum(drawn.random() < p for _ in range(100)), sum(drawn.random() < q for _ in range(100)))
            for _ in range(300)
        ]
        return sum(difference(a, 100, b, 100) == "fewer" for a, b in rows) / len(rows)

    assert told(0.2, 0.2) < 0.04
    assert told(0.1, 0.35) > 0.9
