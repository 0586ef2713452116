"""The simulated house: habits, sentences and situations are what the demo promises of them."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from datetime import datetime

import pytest

from plugins.house import Case, life, persistence, stream, unseen
from plugins.house.habits import CHANGED, HABITS, needed
from plugins.house.model import DEVICES, FEELS, ROOMS, SENSORS, Value, after, catalogue, feel, set_to, spell
from plugins.house.phrases import INTENTS
from plugins.house.plans import PLANS
from plugins.house.resident import Resident, accuracy, acts_to_right
from runtime.messages import NOTHING
from runtime.words import Vocabulary

COUNT = 240


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return stream(1, COUNT)


@pytest.fixture(scope="module")
def others(cases: list[Case]) -> list[Case]:
    return unseen(1, 200, cases)


def test_the_house_is_as_large_as_promised() -> None:
    assert sum(map(len, SENSORS.values())) >= 12
    assert len(DEVICES) >= 6
    assert len(ROOMS) >= 4
    assert 6 <= HABITS <= 8
    assert 2 * len(CHANGED) == HABITS


def test_the_same_seed_tells_the_same_story(cases: list[Case]) -> None:
    assert stream(1, COUNT) == cases
    assert stream(2, COUNT) != cases
    assert [next_case for next_case, _ in zip(life(1, COUNT), cases, strict=False)] == cases


def test_habits_change_once_halfway(cases: list[Case]) -> None:
    assert [case.era for case in cases] == ["old"] * (COUNT // 2) + ["new"] * (COUNT // 2)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_third_of_the_situations_is_spoken_in_both_eras(seed: int) -> None:
    cases = stream(seed, COUNT)
    for half in (cases[: COUNT // 2], cases[COUNT // 2 :]):
        assert sum(case.kind == "speech" for case in half) >= len(half) / 3


def test_held_out_sentences_are_never_said_in_the_stream() -> None:
    held_out = {phrase for intent in INTENTS.values() for phrase in intent.held_out}
    said = {phrase for intent in INTENTS.values() for phrase in intent.said}
    assert not {_plain(phrase) for phrase in held_out} & {_plain(phrase) for phrase in said}
    assert all(case.says in said or not case.says for seed in range(5) for case in stream(seed, COUNT))
    assert all(case.says in held_out or not case.says for case in unseen(1, 200, []))
    for intent in INTENTS.values():
        assert len(intent.said) >= 8
        assert len(intent.held_out) >= 4


def test_a_held_out_sentence_is_no_near_copy() -> None:
    for intent in INTENTS.values():
        for phrase in intent.held_out:
            words = set(_plain(phrase).split())
            for other in intent.said:
                theirs = set(_plain(other).split())
                assert len(words & theirs) / len(words | theirs) < 0.7, (phrase, other)


def test_unseen_situations_are_new_and_cover_every_right_action(cases: list[Case], others: list[Case]) -> None:
    assert len(others) == 200
    assert not {case.key() for case in cases} & {case.key() for case in others}
    assert {case.era for case in others} == {"new"}
    assert Counter(case.kind for case in others) == {"sensor": 100, "speech": 100}
    counts = Counter(case.right_text for case in others)
    assert min(counts.values()) >= 3
    assert counts["nothing"] <= 0.15 * len(others)
    assert {case.right_text for case in cases if case.era == "new"} <= set(counts)


def test_every_right_action_is_in_the_catalogue_of_its_room(cases: list[Case], others: list[Case]) -> None:
    for case in [*cases, *others]:
        offered = catalogue(case.room)
        assert offered.closed
        assert offered.parse(case.right_text) == offered.check(case.right)
        assert set(case.devices) == {device.actuator for device in DEVICES if device.room == case.room}
        assert set(case.readings) == set(SENSORS[case.room])


def test_every_plan_and_every_intent_happens() -> None:
    cases = stream(5, 3000)
    assert {case.intent for case in cases} == {"", *INTENTS}
    assert {(plan.room, frozenset(plan.feels)) for plan in PLANS} == {(c.room, frozenset(c.readings)) for c in cases}


def test_a_picture_never_repeats_at_once_so_each_wakes_a_decision(cases: list[Case]) -> None:
    before: dict[str, tuple[str, ...]] = {}
    for case in cases:
        if case.kind == "sensor":
            assert case.words() != before.get(case.room)
            before[case.room] = case.words()


def test_a_remark_finds_the_room_as_the_resident_wanted_it(cases: list[Case]) -> None:
    for case, following in itertools.pairwise(cases):
        if following.kind == "speech" and following.era == case.era:
            assert following.devices == after(case.devices, case.right)
            assert following.readings == case.readings


def test_the_person_s_words_are_perception_s_words() -> None:
    vocabulary = Vocabulary({}, numbers=False, deadband=0.02)
    for quantity, words in FEELS.items():
        for word, (low, high) in words.items():
            for value in (low, high, (low + high) / 2):
                assert feel(quantity, value) == word == vocabulary.word(f"room/{quantity}", value)


def test_the_changed_habits_change_and_the_others_do_not() -> None:
    evening, night, dawn = datetime(2026, 1, 5, 20), datetime(2026, 1, 5, 23), datetime(2026, 1, 5, 6)
    dark = {"presence": "occupied", "light": "dark", "tv": "off", "temperature": "mild", "co2": "fresh"}
    lamps: dict[str, Value] = {"living_room_lamp": "off", "living_room_blind": "down"}
    bedroom: dict[str, Value] = {"bedroom_lamp": "off", "bedroom_blind": "down", "bedroom_heating": 17}
    hall: dict[str, Value] = {"hall_lamp": "off"}
    rows = (
        ("living_room", evening, dark, lamps, set_to("living_room_lamp", "bright"), set_to("living_room_lamp", "dim")),
        ("hall", night, dark, hall, set_to("hall_lamp", "bright"), set_to("hall_lamp", "dim")),
        ("bedroom", dawn, dark, bedroom, set_to("bedroom_blind", "up"), NOTHING),
        ("bedroom", dawn, {**dark, "temperature": "cold"}, bedroom, set_to("bedroom_heating", 21), set_to("bedroom_heating", 19)),
        ("hall", evening, dark, hall, set_to("hall_lamp", "bright"), set_to("hall_lamp", "bright")),
        ("living_room", evening, {**dark, "presence": "empty"}, lamps, NOTHING, NOTHING),
    )  # fmt: skip
    for room, now, feels, devices, old, new in rows:
        assert needed(room, now, feels, devices, "old") == old
        assert needed(room, now, feels, devices, "new") == new


def test_the_resident_leaves_the_room_right_whatever_was_done(cases: list[Case]) -> None:
    resident, kinds = Resident(1), Counter[str]()
    for case in cases:
        for action in catalogue(case.room).finite():
            reaction = resident.react(case, action)
            kinds[reaction.kind] += 1
            assert (reaction.kind in ("thanks", "silence")) == case.accepts(action)
            room = {**after(case.devices, action), **dict(reaction.acts)}
            assert room == after(case.devices, case.right)
    assert min(kinds[kind] for kind in ("override", "correction", "thanks", "silence")) > 50
    assert acts_to_right(cases[0], cases[0].right) == ()


def test_baselines_and_balanced_accuracy(cases: list[Case], others: list[Case]) -> None:
    assert accuracy(others, [case.right for case in others]) == 1.0
    always_nothing = accuracy(others, [NOTHING] * len(others))
    assert 0.0 < always_nothing < 0.1
    assert accuracy(others, persistence(others, cases)) < 0.5
    assert spell(set_to("bedroom_heating", 19)) == "bedroom_heating 19"


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
