"""Slips: as many as asked for, and the text stays one that somebody could have typed."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runtime.backtest.typos import typed

WORDS = st.lists(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0?", min_size=1, max_size=8), min_size=1, max_size=20)


@given(WORDS, st.integers(0, 99))
def test_nothing_changes_without_slips(words: list[str], seed: int) -> None:
    assert typed(" ".join(words), 0.0, random.Random(seed)) == " ".join(words)


@given(WORDS, st.integers(0, 99))
def test_a_slip_is_a_letter_or_a_word_that_sounds_alike(words: list[str], seed: int) -> None:
    slipped = typed(" ".join(words), 1.0, random.Random(seed))
    assert slipped.strip()
    assert abs(len(slipped) - len(" ".join(words))) <= 3 * len(words)


def test_the_share_of_slips_is_as_asked() -> None:
    text = " ".join(["window"] * 4000)
    changed = sum(word != "window" for word in typed(text, 0.1, random.Random(0)).split(" "))
    assert 320 < changed < 480
