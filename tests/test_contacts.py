"""Who comes back with the same thing: in a home where people speak, and with customers who write."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.contacts import alike, repeated, words_of
from runtime.messages import Turn


def turn(number: int, words: str, at: float | None = None, **more: Any) -> Turn:
    known = {"scope": "hall", "who": "Ana", "adapter": "base", "decided": "off", **more}
    return Turn(decision=f"dc-{number}", at=60.0 * number if at is None else at, words=words, **known)


def back(*turns: Turn, within: float = 600.0) -> list[int]:
    return sorted(int(id.removeprefix("dc-")) for id in repeated(turns, within))


FIXED = settings(derandomize=True, deadline=None)
FIRST = "it is too dark to read in here"
AGAIN = "it is still too dark to read in here"


@pytest.mark.parametrize(
    ("first", "second", "came_back"),
    [
        ({"right": "bright"}, {"decided": "bright"}, True),  # corrected, and she had to say it again
        ({}, {}, True),  # nobody said anything, and the same answer came again
        ({}, {"decided": "bright"}, False),  # another answer this time: another wish, as far as anybody can tell
        ({"right": "off"}, {}, False),  # it was right
        ({"rating": -1.0}, {"decided": "bright"}, True),  # she disliked it
        ({"right": "bright"}, {"who": "Ben"}, False),
        ({"right": "bright"}, {"scope": "kitchen"}, False),
        ({"right": "bright"}, {"at": 700.0}, False),  # much later
    ],
)
def test_the_same_words_come_back_if_they_were_not_settled(
    first: dict[str, Any], second: dict[str, Any], came_back: bool
) -> None:
    assert back(turn(0, FIRST, **first), turn(1, AGAIN, **second)) == ([1] if came_back else [])


def test_other_words_for_what_was_wanted_come_back_too() -> None:
    asked, paraphrase = turn(0, "where is my card", right="card"), turn(1, "the plastic never came", right="card")
    assert back(asked, paraphrase) == [1]
    assert back(asked, turn(1, "what is the rate", right="rate")) == []
    assert back(asked, paraphrase, turn(2, "still no mail from the bank", right="card")) == [1, 2]


def test_what_was_answered_at_last_is_settled() -> None:
    told = turn(1, AGAIN, decided="bright", right="bright")
    assert back(turn(0, FIRST, right="bright"), told, turn(2, FIRST, decided="bright")) == [1]


def test_an_opposite_wish_is_none_of_the_same() -> None:
    assert back(turn(0, "turn on the light", decided="bright"), turn(1, "turn off the light", decided="off")) == []


def test_sensors_do_not_come_back() -> None:
    assert back(turn(0, ""), turn(1, "")) == []


def test_without_a_limit_of_time_a_class_that_was_last_wrong_comes_back() -> None:
    asked, later = turn(0, "where is my card", right="card"), turn(1, "no card yet", at=1e6, right="card")
    assert back(asked, later) == []
    assert back(asked, later, within=math.inf) == [1]


def test_words_are_compared_in_languages_without_spaces() -> None:
    assert alike(words_of("今天天气如何？"), words_of("今天的天气如何"))
    assert not alike(words_of("今天天气如何？"), words_of("打开客厅的灯"))


@FIXED
@given(st.text(max_size=40), st.text(max_size=40))
def test_alike_goes_both_ways(one: str, other: str) -> None:
    assert alike(words_of(one), words_of(other)) == alike(words_of(other), words_of(one))
    assert alike(words_of(one), words_of(one)) == bool(words_of(one))
