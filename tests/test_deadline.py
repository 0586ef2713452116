"""A command ends in time whatever happens to the wall clock."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runtime.deadline import until

seconds = st.floats(-1e6, 1e6)


@given(lives=st.floats(0, 1000), steps=st.lists(st.tuples(st.floats(0, 500), seconds)), first=seconds)
def test_it_never_lives_longer_than_it_was_made_to(
    lives: float, steps: list[tuple[float, float]], first: float
) -> None:
    """`steps`: seconds that pass, and what the wall clock is off by then; `first`: what it was off by when it was made, as
    seen by whoever takes it up."""
    wall, passed = 0.0, 0.0
    left = until(first, first + lives, clock=lambda: wall, monotonic=lambda: passed)
    for gone, wrong in itertools.chain([(0.0, 0.0)], steps):
        passed += gone
        wall = passed + wrong
        assert left() <= lives - passed + 1e-6


def test_a_clock_put_forward_ends_it_early() -> None:
    wall = 100.0
    left = until(100.0, 130.0, clock=lambda: wall, monotonic=lambda: 7.0)
    assert left() == 30.0
    wall = 200.0
    assert left() <= 0
