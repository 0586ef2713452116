"""The reference set stays what it is, and says how much one release would change."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.learning.reference import LONGEST, SHOWN, Answer, Reference, divergence, extended, measure

situations = st.lists(
    st.builds(Reference, scope=st.sampled_from(("hall", "room")), text=st.text(max_size=5)), max_size=60
)
chances = st.dictionaries(st.sampled_from("abcd"), st.floats(-12, 0), min_size=1)


@given(situations, situations, st.integers(1, 20))
def test_what_is_in_the_set_stays_in_its_place(early: list[Reference], late: list[Reference], size: int) -> None:
    first = extended([], early, size)
    second = extended(first, [*early, *late], size)
    assert second[: len(first)] == first
    assert len(set(second)) == len(second) <= size
    assert len(second) == min(size, len({*early, *late}))


@given(situations, st.randoms())
def test_the_order_in_which_situations_came_does_not_matter(seen: list[Reference], turn: object) -> None:
    mixed = list(seen)
    turn.shuffle(mixed)  # type: ignore[attr-defined]
    assert extended([], mixed, 10) == extended([], seen, 10)


def test_a_text_without_end_is_no_reference() -> None:
    assert extended([], [Reference(scope="room", text="x" * (LONGEST + 1))], 10) == []


@given(chances, chances)
def test_divergence_is_none_only_between_equals(before: dict[str, float], after: dict[str, float]) -> None:
    assert divergence(before, before) == 0.0
    assert divergence(before, after) >= 0.0


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    before, after = ({"a": math.log(p), "b": math.log(1 - p)} for p in (0.5, 0.9))
    assert divergence(before, after) == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))


def test_flips_are_counted_and_the_first_are_named() -> None:
    asked = [Reference(scope="room", text=f"situation {n}") for n in range(40)]
    before = [Answer("off", {"off": -0.1, "on": -2.35})] * 40
    after = [Answer("on", {"off": -2.35, "on": -0.1})] * 30 + before[30:]
    found = measure(asked, before, after)
    assert (found.situations, found.flips, len(found.flipped)) == (40, 0.75, SHOWN)
    assert (found.flipped[0].text, found.flipped[0].before, found.flipped[0].after) == ("situation 0", "off", "on")
    assert found.divergence > 1.0
    assert measure(asked, before, before).divergence == 0.0
