"""The talk: a question's choices have numbers."""

from __future__ import annotations

import pytest

from runtime.cli.chatting import _picked, _print
from runtime.errors import BadInput

QUESTION = {
    "id": "dc-1",
    "question": ["lamp dim", "lamp bright"],
    "action": "ask",
    "by": "doubt",
    "adapter": "a",
    "p_model": 0.4,
}


def test_a_choice_is_the_correction_it_stands_for() -> None:
    assert _picked("/2", QUESTION) == "/correct lamp bright"
    assert _picked("/ok", QUESTION) == "/ok"


@pytest.mark.parametrize(("said", "last"), [("/3", QUESTION), ("/0", QUESTION), ("/1", {})])
def test_a_choice_that_was_not_offered_is_said_to_be_none(said: str, last: dict[str, object]) -> None:
    with pytest.raises(BadInput, match="there is no choice"):
        _picked(said, last)


def test_a_question_is_shown_with_its_choices(capsys: pytest.CaptureFixture[str]) -> None:
    _print(QUESTION)
    shown = capsys.readouterr().out
    assert "Which one?" in shown
    assert "/1  lamp dim" in shown
    assert "/2  lamp bright" in shown
