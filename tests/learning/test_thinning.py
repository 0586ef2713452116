"""Words are left out in training, others every time, but never what the answer names."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runtime.learning.thinning import thinned
from runtime.messages import Action, Example


def example(text: str, **arguments: str) -> Example:
    return Example(id="fb", scope="desk", text=text, action=Action(tool="play", arguments=arguments), at=0.0)


@given(st.text(max_size=80), st.floats(0, 0.99), st.integers(0, 9))
def test_what_is_left_stood_there_in_this_order(text: str, share: float, seed: int) -> None:
    words = iter(text.split())
    left = thinned(example(text), share, random.Random(seed)).text.split()
    assert all(word in words for word in left)
    assert left or not text.split()


@given(st.integers(0, 99))
def test_what_the_answer_names_is_never_left_out(seed: int) -> None:
    heard = thinned(example("please play Yellow Submarine, now", song="yellow submarine"), 0.9, random.Random(seed))
    assert "Yellow Submarine," in heard.text


def test_every_time_other_words() -> None:
    said, draw = example("my card has not arrived at my new home in the hills yet"), random.Random(0)
    assert len({thinned(said, 0.3, draw).text for _ in range(100)}) > 20


def test_a_share_of_zero_changes_nothing() -> None:
    said, draw = example("my card  has not arrived"), random.Random(0)
    assert all(thinned(said, 0.0, draw) is said for _ in range(20))
