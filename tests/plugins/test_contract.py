"""What every plugin class in `plugins/` promises, whoever wrote it: these tests find the classes by themselves."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import pytest

import plugins
from runtime.config import BrokerConfig
from runtime.messages import NOTHING, Action, Command, Decision, Feedback, Observation, Outcome, Percept
from runtime.plugins import ENTRY_POINT_GROUP, load, resolve, roles_of
from runtime.roles import ROLES, Actuator, Context, Critic, Perceiver, Plugin, Reading, Rule, Sensor, World

NOW = datetime(2026, 3, 1, 20, 0, tzinfo=UTC)
AT = NOW.timestamp()


def _classes() -> list[type[Plugin]]:
    """Every concrete plugin class defined in a module under plugins/."""
    found: dict[str, type[Plugin]] = {}
    for module in pkgutil.walk_packages(plugins.__path__, "plugins."):
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(cls, ROLES) and cls.__module__ == module.name and not inspect.isabstract(cls):
                found[f"{cls.__module__}:{cls.__qualname__}"] = cls
    return [found[name] for name in sorted(found)]


def _of(*roles: type[Plugin]) -> list[Any]:
    chosen = [cls for cls in _classes() if not roles or issubclass(cls, roles)]
    return [pytest.param(cls, id=f"{cls.__module__}:{cls.__name__}") for cls in chosen]


def _entry(cls: type[Plugin]) -> dict[str, Any]:
    """The `[[plugin]]` table in the class's docstring."""
    first, _, rest = (cls.__doc__ or "").partition("\n")
    (entry,) = tomllib.loads(first + "\n" + textwrap.dedent(rest))["plugin"]
    assert isinstance(entry, dict)
    return entry


def _context(data: Path) -> Context:
    return Context(agent="test", data=data, broker=BrokerConfig(mode="none"), zone=UTC)


def _build(cls: type[Plugin], data: Path) -> Plugin:
    (plugin,) = load([_entry(cls)], _context(data))
    return plugin


def _observation(topic: str = "home/hall", payload: bytes = b'{"light": 3.0, "presence": true}') -> Observation:
    return Observation(id="ob-1", topic=topic, payload=payload, at=AT)


def _round_trips(message: Observation | Feedback | Outcome | Percept | Command | Decision) -> bool:
    return msgspec.json.decode(msgspec.json.encode(message), type=type(message)) == message


def test_first_party_plugins_are_found_by_path_and_by_name() -> None:
    found = {f"{cls.__module__}:{cls.__name__}" for cls in _classes()}
    named = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    assert {"chat", "mqtt", "override", "quiet_hours", "replay", "simulated_home"} <= set(named)
    assert found <= set(named.values())
    for name, path in named.items():
        assert resolve(name) is resolve(path)


@pytest.mark.parametrize("cls", _of())
def test_its_docstring_is_a_config_entry_that_works(cls: type[Plugin], tmp_path: Path) -> None:
    entry = _entry(cls)
    assert entry["use"] == f"{cls.__module__}:{cls.__name__}"
    plugin = _build(cls, tmp_path)
    assert type(plugin) is cls
    assert plugin.name == cls.__name__
    assert roles_of(plugin)
    assert dataclasses.is_dataclass(cls)


@pytest.mark.parametrize("cls", _of())
def test_it_can_live_in_a_process_of_its_own(cls: type[Plugin]) -> None:
    program = (
        "import sys, json\n"
        "from runtime.plugins import load\n"
        "from runtime.roles import Context\n"
        "from runtime.config import BrokerConfig\n"
        "from datetime import UTC\n"
        "from pathlib import Path\n"
        "context = Context(agent='test', data=Path('.'), broker=BrokerConfig(mode='none'), zone=UTC)\n"
        "load([json.loads(sys.argv[1])], context)\n"
        "assert 'torch' not in sys.modules, 'a plugin must not import torch'\n"
        "assert 'runtime.app' not in sys.modules, 'a plugin must not import the daemon'\n"
    )
    entry = msgspec.json.encode(_entry(cls)).decode()
    done = subprocess.run([sys.executable, "-c", program, entry], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cls", _of(Perceiver))
def test_perceive_is_pure(cls: type[Plugin], tmp_path: Path) -> None:
    one, other = _build(cls, tmp_path), _build(cls, tmp_path)
    assert isinstance(one, Perceiver)
    assert isinstance(other, Perceiver)
    observation = _observation()
    world = World({"hall/light": Reading(name="hall/light", value=3.0, at=AT)}, NOW)
    first = list(one.perceive(world, observation))
    assert list(one.perceive(world, observation)) == first == list(other.perceive(world, observation))
    assert dict(world.readings) == {"hall/light": Reading(name="hall/light", value=3.0, at=AT)}
    assert all(msgspec.json.decode(msgspec.json.encode(s), type=type(s)) == s for s in first)


@pytest.mark.parametrize("cls", _of(Rule))
def test_a_rule_says_nothing_or_one_sentence(cls: type[Plugin], tmp_path: Path) -> None:
    rule = _build(cls, tmp_path)
    assert isinstance(rule, Rule)
    percept = Percept(id="pc", scope="hall", text="", at=AT)
    action = Action(tool="bedroom_blind", arguments={"level": "up"})
    for hour in range(24):
        for kind in (NOTHING, action):
            reason = rule.judge(percept, kind, NOW.replace(hour=hour))
            assert reason is None or (isinstance(reason, str) and reason and "\n" not in reason)
        assert rule.judge(percept, NOTHING, NOW.replace(hour=hour)) is None


@pytest.mark.parametrize("cls", _of(Actuator))
async def test_act_raises_or_returns_the_outcome_of_its_command(cls: type[Plugin], tmp_path: Path) -> None:
    actuator = _build(cls, tmp_path)
    assert isinstance(actuator, Actuator)
    offers = actuator.tools()
    assert isinstance(offers, Mapping)
    tools = [tool for row in offers.values() for tool in row]
    assert tools
    assert actuator.tools() == offers
    for tool in tools:
        assert msgspec.json.decode(msgspec.json.encode(tool), type=type(tool)) == tool
        choices = tool.choices()
        action = Action(tool=tool.name, arguments=choices[0] if choices else {})
        command = Command(id="cm-1", decision_id="dc-1", actuator=tool.actuator, action=action, expires_at=AT, at=AT)
        async with asyncio.timeout(10):
            (done,) = await asyncio.gather(actuator.act(command), return_exceptions=True)
        if isinstance(done, BaseException):
            assert str(done)
            continue
        assert done.command_id == command.id
        assert done.decision_id == command.decision_id
        assert _round_trips(done)


@pytest.mark.parametrize("cls", _of(Critic))
def test_a_critic_takes_every_message_and_gives_feedback(cls: type[Plugin], tmp_path: Path) -> None:
    critic = _build(cls, tmp_path)
    assert isinstance(critic, Critic)
    action = Action(tool="hall_lamp", arguments={"level": "dim"})
    decision = Decision(
        id="dc-1", percept_id="pc-1", scope="hall", actions=(action,), by="model", adapter="base", p_model=0.5,
        p_behaviour=1.0, at=AT,
    )  # fmt: skip
    messages: list[Observation | Percept | Decision | Command | Outcome] = [
        _observation(),
        Percept(id="pc-1", scope="hall", text="dark", at=AT, causes=("ob-1",)),
        decision,
        Command(id="cm-1", decision_id="dc-1", actuator="hall_lamp", action=action, expires_at=AT + 9, at=AT),
        Outcome(id="oc-1", decision_id="dc-1", command_id="cm-1", status="applied", at=AT),
        _observation("home/hall/lamp", b'{"state": "dim"}'),
        _observation("home/hall/lamp", b'{"state": "off"}'),
        _observation("home/hall/lamp", b"\xff"),
        _observation("a", b"[1, 2]"),
    ]
    for message in messages:
        for feedback in critic.criticise(message):
            assert isinstance(feedback, Feedback)
            assert _round_trips(feedback)


@pytest.mark.parametrize("cls", _of(Sensor))
async def test_a_sensor_survives_cancellation_and_says_only_messages(cls: type[Plugin], tmp_path: Path) -> None:
    sensor = _build(cls, tmp_path)
    assert isinstance(sensor, Sensor)
    said: list[Observation | Feedback] = []

    async def emit(message: Observation | Feedback) -> None:
        said.append(message)

    async def live() -> None:
        await sensor.start()
        await sensor.sense(emit)

    running = asyncio.create_task(live())
    for _ in range(20):
        await asyncio.sleep(0)
    running.cancel()
    done = (await asyncio.gather(running, return_exceptions=True))[0]
    assert done is None or isinstance(done, asyncio.CancelledError) or str(done)
    await sensor.stop()
    await sensor.stop()  # also after a failed start, also twice
    assert all(_round_trips(message) for message in said)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
