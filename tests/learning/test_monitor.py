"""The two tests that look after every word: what they promise about mistakes, over many simulated versions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.learning import monitor
from runtime.learning.monitor import DOWN, ENOUGH, UP, Trial

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


@given(pairs)
def test_only_where_the_two_differ_it_counts(seen: list[tuple[bool, bool]]) -> None:
    trial = Trial(release="re")
    for right, other in seen:
        trial = trial.after(right, other)
    assert trial.wins - trial.losses == sum(r for r, _ in seen) - sum(o for _, o in seen)
    assert trial.events == len(seen)


def run(win: float, loss: float, draw: random.Random) -> Trial:
    trial = Trial(release="re")
    while not trial.ending:
        x = draw.random()
        trial = trial.after(x < win or x >= win + loss, win <= x)
    return trial


@pytest.mark.parametrize("seed", range(3))
def test_a_worse_version_is_found_out_and_a_better_one_mostly_stays(seed: int) -> None:
    draw = random.Random(seed)
    worse = [run(0.07, 0.12, draw) for _ in range(200)]
    better = [run(0.12, 0.07, draw) for _ in range(200)]
    assert sum(trial.ending == "better" for trial in worse) <= 20
    assert sorted(trial.events for trial in worse if trial.ending == "worse")[90] <= 50
    assert sum(trial.ending == "better" for trial in better) >= 100


def test_a_version_that_never_differs_is_no_worse_in_the_end() -> None:
    trial = Trial(release="re")
    for _ in range(ENOUGH - 1):
        trial = trial.after(True, True)
    assert not trial.ending
    assert trial.after(False, False).ending == "better"


def test_the_bounds() -> None:
    assert Trial(release="re", wins=UP).ending == "better"
    assert Trial(release="re", losses=-DOWN).ending == "worse"
    assert not Trial(release="re", wins=3, losses=3).ending


def test_the_same_rate_is_rarely_called_worse_however_often_one_looks() -> None:
    draw = random.Random(1)
    before = [draw.random() < 0.2 for _ in range(200)]
    alarms = sum(monitor.worse(before, [draw.random() < 0.2 for _ in range(500)]) >= monitor.TAKEN for _ in range(200))
    assert alarms <= 10


def test_twice_the_complaints_are_called_worse() -> None:
    draw = random.Random(2)
    before = [draw.random() < 0.2 for _ in range(200)]
    found = [monitor.worse(before, [draw.random() < 0.5 for _ in range(100)]) for _ in range(50)]
    assert sum(wealth >= monitor.TAKEN for wealth in found) >= 45


def test_with_little_known_nothing_is_said() -> None:
    assert monitor.worse([], [True] * 100) == 1.0
    assert monitor.worse([False] * 19, [True] * 100) == 1.0


@given(st.lists(st.booleans(), min_size=20, max_size=60), st.lists(st.booleans(), max_size=80))
def test_wealth_is_never_lost_for_good(before: list[bool], now: list[bool]) -> None:
    assert monitor.worse(before, now) >= 1.0
