"""What a feedback topic may carry, and that anything else is refused with a reason and can be kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.mqtt_feedback import KEYS, read, unreadable
from runtime.errors import BadInput
from runtime.messages import Action, Feedback


def feedback(message: object, identity: str = "") -> Feedback:
    return read(json.dumps(message).encode(), identity=identity, source="mqtt", at=1.0)


def test_the_four_kinds() -> None:
    text = Action(tool="text", arguments={"text": "lamp dim"})
    lamp = {"tool": "lamp", "arguments": {"level": "dim"}}
    assert feedback({"decision": "d", "correct": "lamp dim"}).action == text
    assert feedback({"decision": "d", "correct": lamp}).action == Action(tool="lamp", arguments={"level": "dim"})
    assert feedback({"decision": "d", "accept": True}).kind == "acceptance"
    assert feedback({"decision": "d", "accept": False}).rating == -1
    assert feedback({"decision": "d", "rating": 0.5, "source": "anna", "note": "n"}).source == "anna"
    preference = feedback({"decision": "d", "prefer": "lamp dim", "over": lamp})
    assert (preference.kind, preference.action, preference.rejected and preference.rejected.tool) == (
        "preference",
        text,
        "lamp",
    )


def test_the_same_message_is_the_same_feedback() -> None:
    message = {"decision": "d", "accept": True}
    assert feedback(message, "m1").id == feedback(message, "m1").id
    assert feedback(message, "m1").id != feedback(message, "m2").id
    assert feedback({**message, "id": "x"}, "m1").id == feedback({**message, "id": "x"}, "m2").id
    assert feedback(message).id != feedback(message).id


@pytest.mark.parametrize(
    "message",
    [
        [], "x", 1, {}, {"decision": "d"}, {"decision": 1, "accept": True}, {"decision": "", "accept": True},
        {"decision": "d", "accept": 1}, {"decision": "d", "rating": 2}, {"decision": "d", "rating": True},
        {"decision": "d", "rating": 0, "accept": True}, {"decision": "d", "prefer": "a"}, {"decision": "d", "correct": ""},
        {"decision": "d", "correct": {"tool": "a", "x": 1}}, {"decision": "d", "correct": {"tool": "a", "arguments": []}},
        {"decision": "d", "accept": True, "typo": 1}, {"decision": "d", "accept": True, "note": 1},
    ],
)  # fmt: skip
def test_what_is_no_feedback(message: object) -> None:
    with pytest.raises(BadInput):
        feedback(message)


@given(
    st.dictionaries(
        st.sampled_from(sorted(KEYS)),
        st.none() | st.booleans() | st.floats() | st.text() | st.dictionaries(st.text(), st.text()),
    )
)
def test_anything_else_is_bad_input_and_can_be_kept(message: dict[str, Any]) -> None:
    body = json.dumps(message).encode()
    try:
        read(body, identity="", source="mqtt", at=1.0)
    except BadInput as error:
        kept = unreadable(body, str(error), identity="m", source="mqtt", at=1.0)
        assert kept.action is None
        assert kept.note
