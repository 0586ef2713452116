"""When the learner may begin by itself, as people write it: `22:00-06:00`."""

from __future__ import annotations

from datetime import datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.hours import spans
from runtime.learning.windows import load_allows, open_now

MINUTES = st.integers(0, 24 * 60 - 1)
MIDNIGHT = datetime(2026, 3, 1)


def at(minute: int) -> datetime:
    return MIDNIGHT + timedelta(minutes=minute)


def written(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


@pytest.mark.parametrize(
    ("hours", "open_at", "closed_at"),
    [
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
        ("12:00-13:00", ["12:00", "12:59"], ["11:59", "13:00", "00:00"]),
        ("22:00-06:00, 12:00-13:00", ["23:00", "03:00", "12:30"], ["06:30", "13:00", "21:00"]),
        ("9:05 - 9:10", ["09:05", "09:09"], ["09:04", "09:10"]),
        ("20:00-24:00", ["20:00", "23:59"], ["00:00", "19:59"]),
        ("00:00-24:00", ["00:00", "12:00", "23:59"], []),
        ("", ["00:00", "12:00", "23:59"], []),
        (" , ", ["12:00"], []),
    ],
)
def test_hours(hours: str, open_at: list[str], closed_at: list[str]) -> None:
    for moment in open_at:
        assert open_now(hours, datetime.combine(MIDNIGHT, time.fromisoformat(moment))), moment
    for moment in closed_at:
        assert not open_now(hours, datetime.combine(MIDNIGHT, time.fromisoformat(moment))), moment


@given(start=MINUTES, end=MINUTES, now=MINUTES)
def test_a_span_and_its_reverse_share_the_day(start: int, end: int, now: int) -> None:
    if start != end:
        there, back = f"{written(start)}-{written(end)}", f"{written(end)}-{written(start)}"
        assert open_now(there, at(now)) != open_now(back, at(now))
        assert open_now(f"{there},{back}", at(now))


@given(start=MINUTES, length=st.integers(1, 24 * 60 - 1), now=MINUTES)
def test_open_from_its_beginning_for_its_length_across_midnight_too(start: int, length: int, now: int) -> None:
    hours = f"{written(start)}-{written((start + length) % (24 * 60))}"
    assert open_now(hours, at(now)) == ((now - start) % (24 * 60) < length)


@pytest.mark.parametrize(
    "hours", ["22-06", "25:00-06:00", "22:60-06:00", "22:00", "22:00-", "always", "22:00-06:00;12:00-13:00", "24:00-06:00",
              "22:00-24:30"],
)  # fmt: skip
def test_what_is_no_span_is_named_in_one_sentence(hours: str) -> None:
    with pytest.raises(ValueError, match=r"^.* is no span of hours; write one such as 22:00-06:00$"):
        spans(hours)


def test_the_mistake_is_the_part_that_is_named() -> None:
    with pytest.raises(ValueError, match="'noon'"):
        open_now("22:00-06:00, noon", MIDNIGHT)


@pytest.mark.parametrize(
    ("limit", "load", "allowed"), [(0, 50, True), (1.5, 1.5, True), (1.5, 1.6, False), (1.5, 0, True)]
)
def test_a_busy_machine_is_left_alone(limit: float, load: float, allowed: bool) -> None:
    assert load_allows(limit, load) == allowed
