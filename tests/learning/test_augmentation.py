"""A variant is what a person could have said instead: another room or number in text and answer, and nothing guessed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue, Tool
from runtime.learning.augmentation import augmented
from runtime.messages import Action, Example

ROOMS = ["hall", "kitchen", "living room", "room"]
LIGHT = Tool(
    name="light", required=("room",),
    arguments={"room": {"enum": ROOMS}, "level": {"enum": ["off", "dim", 5, True]}, "slow": {"type": "boolean"}},
)  # fmt: skip
HEATING = Tool(
    name="heating",
    arguments={
        "degrees": {"type": "number", "minimum": 5, "maximum": 30},
        "minutes": {"type": "integer", "minimum": 1, "maximum": 99},
        "about": {"type": "number", "minimum": 0},
        "note": {"type": "string"},
    },
)
MOVE = Tool(name="move", arguments={"start": {"enum": ROOMS}, "end": {"enum": ROOMS}})
CATALOGUES = {"home": Catalogue(tools=(LIGHT, HEATING, MOVE, DO_NOTHING)), "chat": Catalogue(tools=(REPLY,))}


def example(said: str, tool: str, number: int = 0, scope: str = "home", **arguments: Any) -> Example:
    action = Action(tool=tool, arguments=arguments)
    return Example(id=f"fb-{number}", scope=scope, text=said, action=action, at=1.0, weight=2.0)


def variants(*examples: Example, copies: int = 10, seed: int = 0) -> list[Example]:
    known = {e.id for e in examples}
    return [e for e in augmented(examples, CATALOGUES, copies=copies, seed=seed) if e.id not in known]


def rendered(found: list[Example]) -> set[tuple[str, str]]:
    return {(e.text, CATALOGUES[e.scope].render(e.action)) for e in found}


def test_a_room_is_swapped_in_text_and_answer() -> None:
    found = variants(example("Light in the kitchen, please.", "light", room="kitchen"))
    assert rendered(found) == {
        ("Light in the hall, please.", 'light {"room":"hall"}'),
        ("Light in the living room, please.", 'light {"room":"living room"}'),
        ("Light in the room, please.", 'light {"room":"room"}'),
    }


def test_a_number_is_swapped_within_its_range_and_as_precise_as_it_was() -> None:
    for old, text, kind in ((21, "21", int), (21.0, "21", float), (20.5, "20.5", float)):
        found = variants(example(f"Make it {text} degrees.", "heating", degrees=old))
        assert len(found) >= 5
        for variant in found:
            new = variant.action.arguments["degrees"]
            assert type(new) is kind
            assert 5 <= new <= 30
            assert variant.text == f"Make it {new:g} degrees."
            assert round(new, 1) == new


def test_one_argument_at_a_time_and_the_rest_stays() -> None:
    given_ = example("kitchen off", "light", room="kitchen", level="off", slow=True)
    for variant in variants(given_):
        same = {key for key, value in variant.action.arguments.items() if value == given_.action.arguments[key]}
        assert same in ({"level", "slow"}, {"room", "slow"})
        assert (variant.scope, variant.at, variant.correction) == (given_.scope, given_.at, given_.correction)


UNTOUCHED = {
    "not in the text": example("Light, please.", "light", room="kitchen"),
    "twice": example("The kitchen, I said the kitchen.", "light", room="kitchen"),
    "twice, once in capitals": example("Kitchen! The kitchen.", "light", room="kitchen"),
    "only in capitals": example("Kitchen!", "light", room="kitchen"),
    "part of a word": example("The kitchens.", "light", room="kitchen"),
    "part of a joined word": example("The kitchen-diner.", "light", room="kitchen"),
    "part of a longer value": example("The living room.", "light", room="room"),
    "part of a number": example("Make it 21.5.", "heating", degrees=21),
    "part of a time": example("At 21:30, please.", "heating", degrees=21),
    "below zero": example("It is -21 here.", "heating", degrees=21),
    "of two arguments": example("Go round the hall.", "move", start="hall", end="hall"),
    "a number without an upper end": example("About 7.", "heating", about=7),
    "free text": example("Note warm.", "heating", note="warm"),
    "a reply": example("Say hello.", "reply", scope="chat", text="hello"),
    "true is no word": example("It is True.", "light", room="hall", slow=True),
    "of a scope that is gone": example("The kitchen.", "light", scope="shed", room="kitchen"),
    "no longer allowed": example("The cellar.", "light", room="cellar"),
    "nothing": example("All is well in the hall.", "nothing"),
}


@pytest.mark.parametrize("why", UNTOUCHED)
def test_what_is_not_certain_stays_alone(why: str) -> None:
    assert augmented([UNTOUCHED[why]], CATALOGUES, copies=5, seed=0) == [UNTOUCHED[why]]


def test_a_disliked_answer_has_no_variants() -> None:
    given_ = example("The kitchen.", "light", room="kitchen")
    disliked = replace(given_, reward=-1.0)
    assert variants(disliked) == []


def test_a_value_that_only_happens_to_stand_in_the_text_is_left_alone() -> None:
    """`dim` is how the room is, not what was asked for: elsewhere the same word has another answer."""
    alike = [example(f"It is dim, case {n}.", "light", n, room="hall", level="dim") for n in range(5)]
    assert variants(*alike)
    assert not variants(*alike, example("It is dim and late.", "light", 9, room="hall", level="off"))


def test_a_variant_never_says_what_was_said_already() -> None:
    kitchen = example("Light in the kitchen.", "light", 1, room="kitchen")
    hall = example("Light in the hall.", "nothing", 2)  # its answer stands
    texts = Counter(e.text for e in augmented([kitchen, hall], CATALOGUES, copies=9, seed=0))
    assert max(texts.values()) == 1
    twins = [
        example("Light in the kitchen.", "light", 1, room="kitchen"),
        example("Light in the room.", "light", 2, room="room"),
    ]
    texts = Counter(e.text for e in augmented(twins, CATALOGUES, copies=9, seed=0))
    assert texts == Counter(f"Light in the {room}." for room in ROOMS)


def test_the_wrong_answer_moves_with_the_right_one() -> None:
    given_ = example("Kitchen, the kitchen lamp: dim in the hall.", "light", room="hall", level="dim")
    wrong = Action(tool="light", arguments={"room": "hall", "level": "off"})
    found = variants(replace(given_, rejected=wrong))
    assert found
    for variant in found:
        assert variant.rejected != variant.action
        if variant.action.arguments["room"] != "hall":
            assert variant.rejected is not None
            assert variant.rejected.arguments == {**variant.action.arguments, "level": "off"}
    [off] = [v for v in found if v.action.arguments.get("level") == "off"]
    assert off.rejected is None


# --- whatever the examples are ------------------------------------------------------------------------------------

ACTIONS = st.one_of(
    st.builds(
        lambda room, level: Action(tool="light", arguments={"room": room, "level": level}),
        st.sampled_from(ROOMS), st.sampled_from(["off", "dim", 5, True]),
    ),
    st.floats(5, 30).map(lambda d: Action(tool="heating", arguments={"degrees": round(d, 1)})),
    st.builds(lambda m, n: Action(tool="heating", arguments={"minutes": m, "note": n}), st.integers(1, 99), st.text()),
    st.builds(
        lambda a, b: Action(tool="move", arguments={"start": a, "end": b}), st.sampled_from(ROOMS), st.sampled_from(ROOMS)
    ),
    st.just(Action(tool="nothing")),
)  # fmt: skip
WORDS = st.lists(
    st.sampled_from([*ROOMS, "off", "dim", "5", "21", "20.5", "7", "-7", "12:30", "please", "the", "True", "5.", "hall,"]),
    max_size=8,
).map(" ".join)  # fmt: skip


@st.composite
def taught(draw: st.DrawFn) -> list[Example]:
    """Texts that name some of the values of their answers, among other words."""
    out: list[Example] = []
    for number in range(draw(st.integers(0, 6))):
        action = draw(ACTIONS)
        values = [str(v) for v in action.arguments.values() if draw(st.booleans())]
        text = " ".join([draw(WORDS), *values, draw(WORDS)])
        weight = draw(st.floats(0.01, 10))
        out.append(Example(id=f"fb-{number}", scope="home", text=text, action=action, at=0.0, weight=weight))
    return out


@settings(max_examples=200, deadline=None)
@given(examples=taught(), copies=st.integers(0, 4), seed=st.integers(0, 99))
def test_variants_are_valid_few_new_and_weigh_nothing_more(examples: list[Example], copies: int, seed: int) -> None:
    found = augmented(examples, CATALOGUES, copies=copies, seed=seed)
    assert augmented(examples, CATALOGUES, copies=copies, seed=seed) == found
    assert len({e.id for e in found}) == len(found)
    known = {e.id: e for e in examples}
    families: dict[str, list[Example]] = {}
    for item in found:
        CATALOGUES["home"].check(item.action)
        head = item.id if item.id in known else next(reversed(families))
        families.setdefault(head, []).append(item)
    assert list(families) == list(known)
    said_before = {e.text for e in examples}
    for name, family in families.items():
        first, *others = family
        assert len(others) <= copies
        assert (first.text, first.action) == (known[name].text, known[name].action)
        assert sum(e.weight for e in family) == pytest.approx(known[name].weight)
        for other in others:
            assert other.text not in said_before
            said_before.add(other.text)
            [changed] = [k for k, v in other.action.arguments.items() if v != first.action.arguments[k]]
            assert str(other.action.arguments[changed]).removesuffix(".0") in other.text
