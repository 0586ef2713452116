"""A change is seen soon, and where nothing changes hardly ever: figures over many simulated houses, and river as the oracle."""

from __future__ import annotations

import random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.learning import drift

CALM, LONG = 300, 1500  # decisions before a change; of a house where nothing changes


def people(seed: int, before: float, after: float, length: int = 2 * CALM) -> list[bool]:
    """Which decisions they correct: so many of the first CALM, and of those after them."""
    draw = random.Random(seed)
    return [draw.random() < (before if n < CALM else after) for n in range(length)]


def first_alarm(bits: list[bool], start: int = 1) -> int | None:
    """How many had been seen; it is looked at after every correction, as the stage does."""
    seen = (n for n in range(start, len(bits) + 1) if bits[n - 1])
    return next((n for n in seen if drift.rise(bits[:n]) is not None), None)


@pytest.mark.parametrize(("before", "after", "soon"), [(0.08, 0.31, 60), (0.05, 0.5, 30), (0.0, 0.3, 30)])
def test_a_change_is_seen_soon(before: float, after: float, soon: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = [first_alarm(people(seed, before, after), CALM) for seed in range(40)]
    delays = sorted(n - CALM for n in found if n is not None)
    with capsys.disabled():
        print(
            f"\n{before:.0%} -> {after:.0%} corrected: seen in {len(delays)} of 40 houses, median after {median(delays):.0f}"
        )
    assert len(delays) >= 38
    assert median(delays) <= soon


def test_where_nothing_changes_it_is_hardly_ever_alarmed(capsys: pytest.CaptureFixture[str]) -> None:
    rates = (0.02, 0.05, 0.1, 0.2)
    alarms = [first_alarm(people(seed, rate, rate, LONG)) for rate in rates for seed in range(10)]
    count = sum(alarm is not None for alarm in alarms)
    with capsys.disabled():
        print(f"\nno change: {count} alarms in {len(alarms)} houses of {LONG} decisions")
    assert count <= 2


def test_fewer_corrections_are_no_alarm() -> None:
    assert drift.rise([True] * 100 + [False] * 100) is None


def test_the_reason_tells_the_two_sides_apart() -> None:
    rise = drift.rise([False] * 100 + [True] * 20)
    assert rise is not None
    assert (rise.now, rise.before) == (1.0, 0.0)


def test_the_core_is_rivers_adwin() -> None:
    from river.drift import ADWIN  # brings scipy: only here

    for seed in range(5):
        bits = people(seed, 0.05, 0.6)
        public = ADWIN(delta=drift.DELTA, clock=1, max_buckets=5, min_window_length=drift.LEAST, grace_period=10)
        seen = next(n for n, bit in enumerate(bits, 1) if public.update(bit) or public.drift_detected)
        assert drift.rise(bits[: seen - 1]) is None
        assert drift.rise(bits[:seen]) is not None


@given(st.lists(st.integers(0, 1000), min_size=drift.SOME, max_size=60), st.integers(0, 1000))
def test_standing_out_does_not_hang_on_the_scale(before: list[int], number: int) -> None:
    stands = drift.stands_out(number, before)
    assert stands == drift.stands_out(0.001 * number + 5, [0.001 * other + 5 for other in before])
    assert not stands or number > sorted(before)[len(before) // 2]


def test_an_unfamiliar_kind_of_message_is_seen_though_novelty_falls_while_it_learns() -> None:
    draw = random.Random(0)
    novelty = [0.6 - n / 1000 + draw.gauss(0, 0.1) + 0.3 * (n >= CALM) for n in range(CALM + 40)]
    strange = [drift.stands_out(novelty[n], novelty[max(0, n - 100) : n]) for n in range(len(novelty))]
    alarms = [n for n in range(1, len(strange)) if drift.rise(strange[:n]) is not None]
    assert CALM < alarms[0] <= CALM + 30
    assert drift.rise(strange[:CALM]) is None
