"""The guard: whatever is proposed, nothing outside the envelope passes; what it does not know it refuses."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.catalogue import DO_NOTHING, Catalogue, Tool
from runtime.config import GuardConfig, Interlock, Mode
from runtime.guard import Guard, Modes
from runtime.interlocks import Interlocks
from runtime.messages import Action, Command
from runtime.pace import Pace

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


def sent(actuator: str, level: object, *, at: float = 1000.0, expires_at: float = 2000.0) -> Command:
    return Command(
        id="cm", decision_id="dc", actuator=actuator, action=Action(tool=actuator, arguments={"level": level}),
        expires_at=expires_at, at=at,
    )  # fmt: skip


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


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
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


def test_a_kill_file_that_cannot_be_looked_for_is_one(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a directory")
    guarding = Guard(GuardConfig(), tmp_path / ("k" * 300), clock=Clock(), monotonic=Clock())
    assert "kill switch" in (guarding.admit(command()) or "")


def test_the_switch_holds_although_its_file_cannot_be_written(tmp_path: Path) -> None:
    guarding = Guard(GuardConfig(), tmp_path / "gone" / "KILL", clock=Clock(), monotonic=Clock())
    with pytest.raises(FileNotFoundError):
        guarding.kill(True)
    assert "kill switch" in (guarding.admit(command()) or "")


def test_a_guard_that_fails_lets_nothing_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guarding = guard(tmp_path, Clock())
    monkeypatch.setattr(guarding.interlocks, "refuse", lambda action: 1 / 0)
    assert "the guard failed" in (guarding.admit(command()) or "")
    assert "the guard failed" in (guarding.permits(command()) or "")


def test_what_is_sent_again_is_not_counted_but_looked_at(tmp_path: Path) -> None:
    guarding = guard(tmp_path, Clock(), rate=1)
    assert guarding.admit(command()) is None
    assert guarding.permits(command()) is None
    guarding.kill(True)
    assert "kill switch" in (guarding.permits(command()) or "")


def test_a_budget_counts_all_actuators(tmp_path: Path) -> None:
    admit = guard(tmp_path, Clock(), budget=2).admit
    assert [admit(sent("lamp", "on")), admit(sent("heating", 20))] == [None, None]
    assert "[guard] budget" in (admit(sent("door", "shut")) or "")


def test_dwell_holds_against_another_word_not_against_the_same(tmp_path: Path) -> None:
    clock = Clock()
    admit = guard(tmp_path, clock, dwell={"l*": 60}).admit
    assert admit(sent("lamp", "on")) is None
    clock.now += 59
    assert "[guard] dwell" in (admit(sent("lamp", "off")) or "")
    assert admit(sent("lamp", "on")) is None
    clock.now += 1
    assert admit(sent("lamp", "off")) is None


@given(
    steps=st.lists(st.tuples(st.floats(0, 100), st.one_of(st.floats(-50, 50), st.integers(-50, 50))), max_size=30),
    per_minute=st.floats(0.1, 50),
)
def test_nothing_moves_faster_than_it_may(steps: list[tuple[float, float]], per_minute: float) -> None:
    clock = Clock()
    pace = Pace(GuardConfig(slew={"heating.level": per_minute}, rate=1000), monotonic=clock)
    before: tuple[float, float] | None = None
    for seconds, level in steps:
        clock.now += seconds
        if pace.refuse(sent("heating", level)) is not None:
            continue
        if before is not None:
            assert abs(level - before[0]) <= per_minute * (clock.now - before[1]) / 60
        pace.count(sent("heating", level))
        before = level, clock.now


def test_what_an_earlier_run_sent_counts(tmp_path: Path) -> None:
    clock = Clock()
    guarding = guard(tmp_path, clock, dwell={"*": 60}, slew={"heating.level": 2}, rate=2)
    guarding.pace.restore([sent("lamp", "on", at=clock.now - 10), sent("heating", 18, at=clock.now + 500)], clock.now)
    assert "[guard] dwell" in (guarding.admit(sent("lamp", "off")) or "")
    assert guarding.admit(sent("lamp", "on")) is None
    assert "[guard] rate" in (guarding.admit(sent("lamp", "on")) or "")
    clock.now += 60
    assert "[guard] slew" in (guarding.admit(sent("heating", 21)) or "")
    assert guarding.admit(sent("heating", 20)) is None


def test_quiet_hours_are_local(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = datetime(2026, 7, 1, 20, 30, tzinfo=UTC).timestamp()
    for zone, quiet in ((UTC, False), (ZoneInfo("Europe/Vienna"), True)):
        guarding = Guard(
            GuardConfig(quiet={"l*": "22:00-06:00"}), tmp_path / "KILL", clock=clock, monotonic=clock, zone=zone
        )
        assert ("[guard] quiet" in (guarding.admit(sent("lamp", "on", expires_at=math.inf)) or "")) == quiet


@pytest.mark.parametrize(
    ("interlock", "said", "passes"),
    [
        ({"equals": ["closed"]}, ("closed", 0.0), True),
        ({"equals": ["closed"]}, ("CLOSED", 30.0), True),
        ({"equals": ["closed"]}, ("closed", 31.0), False),
        ({"equals": ["closed"]}, ("open", 0.0), False),
        ({"equals": ["closed"]}, None, False),
        ({"equals": ["closed"]}, ("closed", None), False),
        ({"equals": ["closed"]}, ("closed", -3600.0), False),
        ({"equals": ["closed"], "within": 0}, ("closed", None), True),
        ({"equals": [True]}, (True, 0.0), True),
        ({"equals": [True]}, ("true", 0.0), True),
        ({"equals": [True]}, (1, 0.0), False),
        ({"equals": [1]}, (1.0, 0.0), True),
        ({"at_least": 5}, (5, 0.0), True),
        ({"at_least": 5}, (4.9, 0.0), False),
        ({"at_most": 5}, (math.nan, 0.0), False),
        ({"at_most": 5}, (True, 0.0), False),
        ({"at_most": 5}, ("3", 0.0), False),
        ({"at_most": 5}, (None, 0.0), False),
    ],
)
def test_an_interlock_wants_a_fresh_and_fitting_word(
    interlock: dict[str, Any], said: tuple[Any, float | None] | None, passes: bool
) -> None:
    settings = Interlock(**{"actions": ["lamp on"], "sensor": "hall/door", "within": 30, **interlock})
    interlocks = Interlocks([settings], monotonic=Clock())
    if said is not None:
        interlocks.hear("hall/door", *said)
    assert (interlocks.refuse(Action(tool="lamp", arguments={"level": "on"})) is None) == passes
    assert interlocks.refuse(Action(tool="lamp", arguments={"level": "off"})) is None


def test_an_interlock_without_a_condition_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="needs `equals`"):
        Interlock(actions=["saw on"], sensor="workshop/hood")


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
