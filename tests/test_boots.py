"""Starts that do not live are counted, and after a few of them the next is in safe mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.boots import Boots
from runtime.config import Config, SupervisionConfig
from runtime.safe import reduced


def boots(tmp_path: Path) -> Boots:
    return Boots(tmp_path / "boots.json", SupervisionConfig(crashes=3))


def test_three_that_did_not_live_lead_to_safe_mode(tmp_path: Path) -> None:
    reasons = [boots(tmp_path).begin() for _ in range(5)]
    assert [bool(reason) for reason in reasons] == [False, False, False, True, True]
    assert reasons[3] == "the last 3 starts did not live 60 s"


@pytest.mark.parametrize("end", [Boots.lived, Boots.ended])
def test_one_that_lived_or_was_stopped_forgives_those_before(tmp_path: Path, end: object) -> None:
    for _ in range(3):
        boots(tmp_path).begin()
    end(boots(tmp_path))  # type: ignore[operator]
    assert boots(tmp_path).begin() == ""


def test_on_trial_one_more_failure_leads_back(tmp_path: Path) -> None:
    for _ in range(4):
        boots(tmp_path).begin()
    boots(tmp_path).retry()
    assert boots(tmp_path).begin() == ""
    assert boots(tmp_path).begin() != ""


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"failed": "x"}', '{"failed": -4}', "\x00\xff"])
def test_a_file_that_cannot_be_read_counts_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "boots.json").write_text(text, encoding="latin-1")
    assert boots(tmp_path).begin() == ""
    assert boots(tmp_path).failed == 1


def entries(*uses: str) -> Config:
    return Config(plugin=[{"use": use} for use in uses], modes={"lamp": "act"})


def test_safe_mode_keeps_what_is_needed_to_see_and_steer() -> None:
    given = entries(
        "plugins.mqtt:Mqtt", "simulated_home", "plugins.quiet_hours:QuietHours", "plugins.override:Override"
    )
    found, rules_missing = reduced(given)
    assert [entry["use"] for entry in found.plugin] == ["plugins.mqtt:Mqtt", "plugins.quiet_hours:QuietHours"]
    assert (rules_missing, found.modes, found.learner.enabled) == (False, {"lamp": "act"}, False)


@pytest.mark.parametrize("stranger", ["my_plugins:NobodyHome", "no-such-entry-point"])
def test_where_a_rule_may_be_missing_nothing_is_commanded(stranger: str) -> None:
    found, rules_missing = reduced(entries("plugins.mqtt:Mqtt", stranger))
    assert [entry["use"] for entry in found.plugin] == ["plugins.mqtt:Mqtt"]
    assert (rules_missing, found.modes) == (True, {"*": "observe"})
