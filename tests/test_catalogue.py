"""The catalogue: every action has one text, the text gives the action back, and what is outside is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.catalogue import DO_NOTHING, FINITE_LIMIT, REPLY, Catalogue, Tool
from runtime.errors import BadAction
from runtime.messages import Action

LAMP = Tool(name="lamp", arguments={"level": {"enum": ["off", "dim", 5, True]}}, required=("level",))
BLIND = Tool(
    name="blind",
    arguments={"position": {"type": "integer", "minimum": 0, "maximum": 100}, "slow": {"type": "boolean"}},
    required=("position",),
)
HEATING = Tool(
    name="heating", arguments={"degrees": {"type": "number", "minimum": 5, "maximum": 30}}, required=("degrees",)
)
ROOMS = Tool(
    name="turn_on", arguments={"area": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}}
)
CATALOGUE = Catalogue(tools=(DO_NOTHING, LAMP, BLIND, HEATING, ROOMS, REPLY))

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
actions = st.one_of(
    st.just(Action(tool="nothing")),
    st.sampled_from(["off", "dim", 5, True]).map(lambda v: Action(tool="lamp", arguments={"level": v})),
    st.tuples(st.integers(0, 100), st.booleans()).map(
        lambda v: Action(tool="blind", arguments={"position": v[0], "slow": v[1]})
    ),
    st.integers(0, 100).map(lambda v: Action(tool="blind", arguments={"position": v})),
    st.floats(5, 30).map(lambda v: Action(tool="heating", arguments={"degrees": v})),
    st.lists(words, max_size=3).map(lambda v: Action(tool="turn_on", arguments={"area": v})),
    words.map(lambda v: Action(tool="turn_on", arguments={"area": v})),
)


@settings(max_examples=300, deadline=None)
@given(action=actions)
def test_the_text_gives_the_action_back(action: Action) -> None:
    text = CATALOGUE.render(action)
    assert CATALOGUE.parse(text) == action
    assert CATALOGUE.render(CATALOGUE.parse(text)) == text


@given(text=words.filter(lambda t: t == t.strip()))
def test_a_reply_comes_back_word_for_word(text: str) -> None:
    reply = Action(tool="reply", arguments={"text": text})
    assert CATALOGUE.parse(CATALOGUE.render(reply)) == reply


@given(text=st.text(max_size=60))
def test_any_text_is_an_action_of_the_catalogue_or_refused(text: str) -> None:
    try:
        action = CATALOGUE.parse(text)
    except BadAction:
        return
    assert CATALOGUE.check(action) is action


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("door", {}),
    ("lamp", {}),
    ("lamp", {"level": "brightest"}),
    ("lamp", {"level": 1}),  # not the `true` of the enum
    ("lamp", {"level": "off", "colour": "red"}),
    ("blind", {"position": 101}),
    ("blind", {"position": 1.5}),
    ("blind", {"position": True}),
    ("blind", {"position": "10"}),
    ("heating", {"degrees": float("nan")}),
    ("heating", {"degrees": float("inf")}),
    ("turn_on", {"area": 7}),
    ("turn_on", {"area": ["hall", 7]}),
    ("reply", {"text": "x" * 2001}),
]


@pytest.mark.parametrize(("tool", "arguments"), REFUSED)
def test_what_is_outside_is_refused(tool: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(BadAction):
        CATALOGUE.check(Action(tool=tool, arguments=arguments))


def test_the_refusal_of_an_unknown_tool_names_those_there_are() -> None:
    with pytest.raises(BadAction, match="the tools are nothing, lamp, blind"):
        CATALOGUE.parse("door open")


def test_the_finite_list_has_every_action_once() -> None:
    reply = Action(tool="reply", arguments={"text": "hello"})
    catalogue = Catalogue(tools=(DO_NOTHING, LAMP, REPLY), known=(reply, reply))
    assert [catalogue.render(a) for a in catalogue.finite()] == [
        "nothing", "lamp off", "lamp dim", "lamp 5", "lamp true", "reply hello",
    ]  # fmt: skip
    assert not catalogue.closed
    assert Catalogue(tools=(DO_NOTHING, LAMP)).closed


def test_optional_arguments_may_be_left_out_of_the_finite_list() -> None:
    tool = Tool(name="scene", arguments={"warm": {"type": "boolean"}})
    assert tool.choices() == [{"warm": False}, {"warm": True}, {}]


def test_what_spans_too_much_is_decoded_instead() -> None:
    wide = Tool(name="wide", arguments={n: {"enum": list(range(20))} for n in "abc"}, required=tuple("abc"))
    assert FINITE_LIMIT < 20**3
    assert wide.choices() is None


def test_the_id_is_of_the_content() -> None:
    assert Catalogue(tools=(LAMP,)).id == Catalogue(tools=(LAMP,)).id != Catalogue(tools=(HEATING,)).id


def test_what_an_older_configuration_offered_is_not_allowed_and_has_no_text() -> None:
    for gone in (Action(tool="candle"), Action(tool="lamp", arguments={"brightness": 3})):
        assert not CATALOGUE.allows(gone)
        with pytest.raises(BadAction):
            CATALOGUE.render(gone)
    assert not CATALOGUE.allows(Action(tool="lamp", arguments={"level": "green"}))
    assert CATALOGUE.allows(Action(tool="lamp", arguments={"level": "dim"}))
