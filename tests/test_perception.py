"""Perception: the state of the world in words; what matters wakes a decision, echoes, repeats and noise do not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.bus import Bus
from runtime.config import PerceptionConfig
from runtime.errors import BadConfig, BadInput
from runtime.journal import Journal
from runtime.perception import Perception
from runtime.words import Bands, Vocabulary, canonical, in_unit, part_of_day
from tests.stages import observation

NOON = datetime(2026, 6, 3, 12, 0, tzinfo=UTC).timestamp()


def perception(**settings: Any) -> Perception:
    return Perception(
        cast(Journal, None), Bus(), PerceptionConfig(**settings), [], zone=UTC, actuators=["kitchen_lamp"], scopes=["kitchen"]
    )  # fmt: skip


def texts(stage: Perception, *messages: tuple[str, bytes]) -> list[str]:
    return [
        percept.text
        for number, (topic, payload) in enumerate(messages)
        for percept in stage.perceive(observation(topic, payload, number, at=NOON + number))
    ]


def test_quantities_become_words() -> None:
    assert texts(perception(), ("home/kitchen", b'{"light": 3, "temperature": 18.2, "presence": true}')) == [
        "weekday midday, light dark, presence occupied, temperature cool"
    ]


def test_a_change_within_a_band_wakes_nobody() -> None:
    assert (
        len(
            texts(
                perception(), ("home/kitchen/light", b"3"), ("home/kitchen/light", b"5"), ("home/kitchen/light", b"300")
            )
        )
        == 2
    )


def test_a_value_at_the_border_of_a_band_does_not_flap() -> None:
    messages = [("home/kitchen/light", value) for value in (b"3", b"10.1", b"9.9", b"10.1")]
    assert len(texts(perception(deadband=0.05), *messages)) == 1


def test_the_echo_of_our_own_actuator_wakes_nobody() -> None:
    stage = perception()
    assert texts(stage, ("home/kitchen/lamp", b'{"state": "dim"}')) == []
    assert texts(stage, ("home/kitchen/light", b"3")) == ["weekday midday, lamp dim, light dark"]


def test_a_person_speaks() -> None:
    said = texts(perception(), ("home/kitchen/speech", b'{"who": "Ana", "text": "it is  too dark"}'))
    assert said == ['weekday midday; Ana says: "it is too dark"']


def test_a_message_can_be_the_whole_situation() -> None:
    assert texts(perception(), ("desk/kitchen/mail", '{"input": "今天天气如何？<|im_end|>"}'.encode())) == [
        "今天天气如何？<|im_end|>"
    ]


def test_readings_in_a_line_become_words() -> None:
    line = '{"input": "Fri 10:49 temp=24.9/18C light=121/3/x motion=00"}'
    assert texts(perception(), ("a/kitchen/b", line.encode())) == [
        "weekday morning, temp warm cool, light dim dark x, motion 00"
    ]


def test_a_home_assistant_sentence_stays_as_it_is() -> None:
    assert (
        Vocabulary({}, numbers=False, deadband=0).readings("[area=Living Room] 5 minute timer")
        == "[area=Living Room] 5 minute timer"
    )


def test_shared_and_ignored_sensors() -> None:
    stage = perception(ignore=["kitchen/battery"])
    assert texts(stage, ("home/outside/rain", b"4"), ("home/kitchen/battery", b"80")) == []
    assert texts(stage, ("home/kitchen/light", b"3")) == ["weekday midday, light dark, rain heavy"]


def test_a_sensor_can_be_renamed() -> None:
    assert texts(perception(names={"zigbee2mqtt/0x01": "kitchen/light"}), ("zigbee2mqtt/0x01", b"3")) == [
        "weekday midday, light dark"
    ]


def test_units_are_made_canonical() -> None:
    assert in_unit("room/temperature", 68.0, "°F") == pytest.approx(20.0)
    assert in_unit("room/light", 68.0, "°F") == 68.0


@given(st.text(max_size=40))
def test_canonical_names_stay_as_they_are(name: str) -> None:
    assert canonical(canonical(name)) == canonical(name)


@given(st.floats(-100, 100_000))
def test_every_value_has_a_word(value: float) -> None:
    assert Vocabulary({}, numbers=False, deadband=0.02).word("room/light", value) in {
        "dark",
        "dim",
        "bright",
        "glaring",
    }


def test_bands_must_rise() -> None:
    with pytest.raises(BadConfig, match="rising limits"):
        Bands.read("light", ["dark", 10, "dim", 5, "bright"])


def test_evening_is_when_the_clock_on_the_wall_says_so_in_summer_and_winter() -> None:
    vienna = ZoneInfo("Europe/Vienna")
    summer, winter = (datetime(2026, month, 4, 18, 30, tzinfo=vienna) for month in (7, 11))
    assert summer.utcoffset() != winter.utcoffset()
    moments = [datetime.fromtimestamp(moment.timestamp(), vienna) for moment in (summer, winter)]
    assert {part_of_day(moment).split(" ", 1)[1] for moment in moments} == {"early evening"}


def test_the_world_is_found_again_after_a_restart(tmp_path: Path) -> None:
    stage = perception()
    stage.restore([observation("home/kitchen/light", b"3")])
    assert texts(stage, ("home/kitchen/presence", b"true")) == ["weekday midday, light dark, presence occupied"]


@pytest.mark.parametrize(
    ("topic", "payload"), [("home/kitchen/desk", b'{"input": "hello"}'), ("home/kitchen/speech", b"hello")]
)
def test_what_a_broker_keeps_is_nobody_speaking_now(topic: str, payload: bytes) -> None:
    said = observation(topic, payload, at=NOON)
    assert len(perception().perceive(said)) == 1
    assert perception().perceive(replace(said, retained=True)) == []


def test_a_kept_reading_is_a_state_all_the_same() -> None:
    assert len(perception().perceive(replace(observation("home/kitchen/light", b"3", at=NOON), retained=True))) == 1


def test_a_sensor_that_never_stops_inventing_names_is_refused_and_the_others_are_heard() -> None:
    stage = perception()
    with pytest.raises(BadInput, match="at most 200 are read"):
        stage.perceive(observation("home/kitchen/x", json.dumps({f"k{n}": n for n in range(201)}).encode(), 0, at=NOON))
    texts(
        stage, ("home/kitchen/light", b"3"), ("home/kitchen/x", json.dumps({f"k{n}": n for n in range(199)}).encode())
    )
    with pytest.raises(BadInput, match="'kitchen' would have more than 300 sensor names"):
        texts(stage, ("home/kitchen/y", json.dumps({f"k{n}": n for n in range(199)}).encode()))
    assert texts(stage, ("home/kitchen/light", b"300"))  # what is known already still counts
    rooms = ((f"home/r{n}/x", json.dumps({f"k{n}": n for n in range(199)}).encode()) for n in range(40))
    with pytest.raises(BadInput, match="5000 sensor names are known already"):
        texts(stage, *rooms)


@pytest.mark.parametrize("quiet", [0.0, 10.0])
def test_a_clock_that_is_set_back_silences_nobody(quiet: float) -> None:
    stage = perception(quiet=quiet)
    assert stage.perceive(observation("home/kitchen/light", b"3", 0, at=NOON))
    assert stage.perceive(observation("home/kitchen/light", b"300", 1, at=NOON - 3600))
