"""A situation is cut where people would cut it, and what is left of it is written as perception would write it."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from runtime import pieces
from runtime.words import Vocabulary

WORDS = Vocabulary({}, numbers=False, deadband=0.0)
EVENING = datetime(2026, 3, 4, 20, 0, tzinfo=UTC)
LETTERS = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters='";,'), min_size=1)


def test_sensors_are_cut_into_their_phrases() -> None:
    cut = pieces.cut("weekday evening, light dim, temperature cold", {})
    assert [piece.text for piece in cut] == ["weekday evening", "light dim", "temperature cold"]
    assert cut[1].rest == "weekday evening, temperature cold"


def test_what_a_person_says_is_cut_into_words_beside_the_sensors() -> None:
    text = WORDS.situation(EVENING, ["light dim"], 'turn "it" on', "Ana")
    cut = pieces.cut(text, {"says": 'turn "it" on', "who": "Ana"})
    assert [piece.text for piece in cut] == ["weekday evening", "light dim", "turn", "'it'", "on"]
    assert cut[3].rest == 'weekday evening, light dim; Ana says: "turn on"'
    assert cut[0].rest == "light dim; Ana says: \"turn 'it' on\""


def test_a_message_is_cut_into_words_although_it_has_commas() -> None:
    cut = pieces.cut("My card, which I got last week, fails", {})
    assert [piece.text for piece in cut] == ["My", "card,", "which", "I", "got", "last", "week,", "fails"]
    assert cut[-1].rest == "My card, which I got last week,"


def test_a_language_without_spaces_is_cut_into_signs() -> None:
    cut = pieces.cut("今天天气如何？", {})
    assert [piece.text for piece in cut] == ["今", "天", "天", "气", "如", "何", "？"]
    assert cut[0].rest == "天天气如何？"


def test_what_is_one_piece_has_none() -> None:
    assert pieces.cut("dark", {}) == []


@given(st.lists(LETTERS, min_size=1, max_size=80), st.lists(LETTERS, max_size=80))
def test_there_are_never_too_many_and_none_is_lost(phrases: list[str], said: list[str]) -> None:
    says = " ".join(said)
    text = WORDS.situation(EVENING, phrases, says, "Ana")
    cut = pieces.cut(text, {"says": says} if says else {})
    assert len(cut) <= pieces.MOST
    everything = "".join(piece.text for piece in cut).replace(" ", "").replace(",", "")
    assert everything == ("weekdayevening" + "".join([*phrases, *said])).replace(" ", "").replace(",", "")
    assert all(len(piece.rest) < len(text) for piece in cut)
