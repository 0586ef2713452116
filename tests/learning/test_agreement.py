"""What the apprentice's bet promises about mistakes, over many simulated habits that are looked at after every case."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.learning.agreement import CASES, broken, odds, proven

BOUND = 0.8
counts = st.integers(0, 60)
shares = st.floats(0.5, 0.99)


@given(counts, counts, shares)
def test_more_agreement_is_better_proof(hits: int, misses: int, share: float) -> None:
    assert odds(hits + 1, misses, share) >= odds(hits, misses, share)
    assert odds(hits, misses + 1, share) <= odds(hits, misses, share)


@given(counts, counts, shares, shares)
def test_a_higher_bound_is_harder_to_prove(hits: int, misses: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    cases = [False] * misses + [True] * hits
    assert proven(cases, low) or not proven(cases, high)


@given(counts, counts, shares)
def test_the_expectation_of_the_next_bet_is_what_it_is_now(hits: int, misses: int, share: float) -> None:
    """What makes it hold however often one looks: at the share itself it neither gains nor loses on average."""
    after = share * odds(hits + 1, misses, share) + (1 - share) * odds(hits, misses + 1, share)
    assert after == pytest.approx(odds(hits, misses, share), rel=1e-9)


@pytest.mark.parametrize(("misses", "needed"), [(0, 20), (1, 31), (2, 41)])
def test_the_figures_that_the_documentation_names(misses: int, needed: int) -> None:
    assert proven([False] * misses + [True] * (needed - misses), BOUND)
    assert not proven([False] * misses + [True] * (needed - misses - 1), BOUND)


@pytest.mark.parametrize(("wrong", "of"), [(3, 3), (4, 5), (5, 7), (6, 10)])
def test_a_long_good_past_does_not_hide_a_break(wrong: int, of: int) -> None:
    good = [True] * CASES
    assert broken([*good, *[True] * (of - wrong), *[False] * wrong], BOUND)
    assert not broken([*good, *[True] * (of - wrong), *[False] * 2], BOUND)


def ever(agrees: float, cases: int, draw: random.Random) -> int | None:
    """After how many cases it acts by itself."""
    seen: list[bool] = []
    for number in range(1, cases + 1):
        seen.append(draw.random() < agrees)
        if proven(seen, BOUND):
            return number
    return None


def test_what_people_often_do_otherwise_is_hardly_ever_carried_out(capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    told = {share: [ever(share, 200, draw) for _ in range(60)] for share in (0.6, 0.75, 0.8, 0.95, 1.0)}
    lines = [f"{share:.0%}: {60 - found.count(None)} of 60" for share, found in told.items()]
    with capsys.disabled():
        print(f"\nlike people -> acts by itself within 200 cases: {', '.join(lines)}")
    assert 60 - told[0.6].count(None) == 0
    assert 60 - told[0.75].count(None) <= 2
    assert 60 - told[0.8].count(None) <= 6
    assert told[1.0] == [20] * 60
    assert 60 - told[0.95].count(None) >= 50


def test_an_action_that_is_seldom_put_right_stays() -> None:
    draw = random.Random(1)
    fell = 0
    for _ in range(20):
        cases = [draw.random() >= 0.02 for _ in range(300)]
        fell += any(broken(cases[:n], BOUND) for n in range(1, 301) if not cases[n - 1])
    assert fell <= 1
