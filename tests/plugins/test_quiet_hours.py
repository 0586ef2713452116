"""Quiet hours say no at the named hours, and only then."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from plugins.quiet_hours import QuietHours
from runtime.errors import BadConfig
from runtime.messages import NOTHING, Action, Percept

UP = Action(tool="bedroom_blind", arguments={"level": "up"})
OFF = Action(tool="hall_lamp", arguments={"level": "off"})
SENSOR = Percept(id="pc", scope="bedroom", text="", at=0.0)
SPEECH = Percept(id="pc", scope="bedroom", text="", at=0.0, kind="speech")


def _at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{clock}").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("clock", "quiet"),
    [("21:59:59", False), ("22:00", True), ("00:00", True), ("06:59:59", True), ("07:00", False), ("12:00", False)],
)
def test_a_span_over_midnight(clock: str, quiet: bool) -> None:
    reason = QuietHours(begin="22:00", end="07:00").judge(SENSOR, UP, _at(clock))
    assert (reason is not None) is quiet


def test_a_span_within_the_day() -> None:
    rule = QuietHours(begin="13:00", end="15:00")
    assert rule.judge(SENSOR, UP, _at("14:00")) == "quiet hours from 13:00 to 15:00"
    assert rule.judge(SENSOR, UP, _at("15:00")) is None


def test_a_person_who_asks_gets_it_unless_that_is_switched_off() -> None:
    assert QuietHours().judge(SPEECH, UP, _at("23:00")) is None
    assert QuietHours(spoken=False).judge(SPEECH, UP, _at("23:00")) is not None


def test_other_actuators_quiet_acts_and_nothing_pass() -> None:
    rule = QuietHours(actuators=["*_blind", "*_lamp"], allow=["*_lamp off"])
    assert rule.judge(SENSOR, OFF, _at("23:00")) is None
    assert rule.judge(SENSOR, NOTHING, _at("23:00")) is None
    assert rule.judge(SENSOR, Action(tool="kitchen_fan", arguments={"level": "high"}), _at("23:00")) is None
    assert rule.judge(SENSOR, UP, _at("23:00")) is not None


def test_a_time_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(BadConfig, match='begin = "10 pm" is not a time of day'):
        QuietHours(begin="10 pm")
