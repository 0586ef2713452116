"""De-duplication: one example a situation, however it is written, with a weight that no repetition drives beyond three."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.learning.duplicates import MOST, canonical, merged, situations
from runtime.messages import Action, Example

SPELLINGS = ("it is dark", "It is dark.", "it  is DARK!", "“it is dark”")
words = st.lists(
    st.tuples(st.sampled_from([*SPELLINGS, "it is bright", "19.4 C", "194 C"]), st.sampled_from("ab")), max_size=30
).map(lambda rows: [word(n, *row) for n, row in enumerate(rows)])


def word(number: int, text: str = "it is dark", answer: str = "a", source: str = "Ana") -> Example:
    return Example(
        id=f"fb-{number}", scope="room", text=text, action=Action(tool=answer), source=source, at=float(number)
    )


def test_case_blanks_and_punctuation_make_no_other_situation() -> None:
    assert {canonical(text) for text in SPELLINGS} == {"it is dark"}
    assert canonical("今天天气如何？") == canonical("今天天气如何")


@pytest.mark.parametrize(
    ("one", "other"), [("19.4 C", "194 C"), ("-3 C", "3 C"), ("at 7:30", "at 730"), ("5 €", "5 $"), ("?", "!")]
)
def test_what_changes_the_meaning_stays(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@given(st.text())
def test_a_canonical_text_is_never_empty_unless_the_text_is(text: str) -> None:
    assert bool(canonical(text)) == bool(text)


@given(words, st.integers(0, 5))
def test_one_example_a_situation_whatever_the_order(examples: list[Example], seed: int) -> None:
    found = merged(examples)
    shuffled = random.Random(seed).sample(examples, len(examples))
    assert merged(shuffled) == found
    assert [canonical(e.text) for e in found] == list(dict.fromkeys(canonical(e.text) for e in found))
    for example in found:
        said = situations(examples)[example.scope, canonical(example.text)]
        same = [one for one in said if one.action == example.action]
        assert said[-1].id == example.id, "the newest word stands"
        assert {example.id, *example.also} == {one.id for one in same}, "who learns from it is known by all their words"
        assert example.weight == min(MOST, float(len(same)))


def test_a_rating_that_is_not_sure_counts_less() -> None:
    (found,) = merged([replace(word(1), weight=0.25), replace(word(2), weight=0.5)])
    assert found.weight == 0.75
