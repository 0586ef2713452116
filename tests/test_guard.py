"""The guard: whatever is proposed, nothing outside the envelope passes; what it does not know it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.catalogue import DO_NOTHING, Catalogue, Tool
from runtime.config import GuardConfig, Mode
from runtime.guard import Guard, Modes
from runtime.messages import Action, Command

HEATING = Tool(
    name="heating",
    arguments={"level": {"type": "number", "minimum": 5, "maximum": 30}},
    required=("level",),
    actuator="heating",
)
LAMP = Tool(name="lamp", arguments={"level": {"enum": ["off", "on"]}}, required=("level",), actuator="lamp")
CATALOGUE = Catalogue(tools=(DO_NOTHING, HEATING, LAMP))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def guard(tmp_path: Path, clock: Clock, **settings: Any) -> Guard:
    return Guard(GuardConfig(**settings), tmp_path / "KILL", clock=clock, monotonic=clock)


def command(expires_at: float = 2000.0) -> Command:
    return Command(
        id="cm",
        decision_id="dc",
        actuator="lamp",
        action=Action(tool="lamp", arguments={"level": "on"}),
        expires_at=expires_at,
        at=1000.0,
    )


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tool=st.sampled_from(["heating", "lamp", "door", ""]),
    arguments=st.dictionaries(st.sampled_from(["level", "x"]), values, max_size=2),
)
def test_nothing_outside_the_envelope_passes(tmp_path: Path, tool: str, arguments: dict[str, Any]) -> None:
    verdict = guard(tmp_path, Clock(), ranges={"heating.level": (15, 22)}).judge(
        Action(tool=tool, arguments=arguments), CATALOGUE
    )
    if verdict is not None:
        return
    (value,) = arguments.values()
    if tool == "heating":
        assert not isinstance(value, bool)
        assert 15 <= value <= 22
    else:
        assert (tool, value) in {("lamp", "off"), ("lamp", "on")}


def test_only_allowed_actuators(tmp_path: Path) -> None:
    judge = guard(tmp_path, Clock(), allow=["heat*"]).judge
    assert judge(Action(tool="heating", arguments={"level": 20}), CATALOGUE) is None
    assert "not in [guard] allow" in (judge(Action(tool="lamp", arguments={"level": "on"}), CATALOGUE) or "")


def test_rate_holds_for_every_minute(tmp_path: Path) -> None:
    clock = Clock()
    admit = guard(tmp_path, clock, rate=2).admit
    assert [admit(command()) for _ in range(2)] == [None, None]
    assert "a minute" in (admit(command()) or "")
    clock.now += 60.0
    assert admit(command()) is None


def test_an_old_command_is_not_sent(tmp_path: Path) -> None:
    assert "expired" in (guard(tmp_path, Clock()).admit(command(expires_at=1000.0)) or "")


def test_kill_switch_is_a_file(tmp_path: Path) -> None:
    guarding = guard(tmp_path, Clock())
    (tmp_path / "KILL").touch()
    assert "kill switch" in (guarding.admit(command()) or "")
    guarding.kill(False)
    assert guarding.admit(command()) is None


@pytest.mark.parametrize(
    ("configured", "switched", "trusted", "mode"),
    [
        ({}, {}, False, "observe"),
        ({}, {}, True, "act"),
        ({"l*": "confirm"}, {}, True, "confirm"),
        ({"lamp": "act"}, {"lamp": "observe"}, False, "observe"),
    ],
)
def test_modes_take_the_most_deliberate_word(
    configured: dict[str, Mode], switched: dict[str, Mode], trusted: bool, mode: Mode
) -> None:
    assert Modes(configured, frozenset({"lamp"} if trusted else ()), switched).of("lamp") == mode
