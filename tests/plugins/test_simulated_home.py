"""The home in its two shapes: a plugin inside the daemon, and a process that talks nothing but MQTT."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from iotcore import Broker

from plugins.house import Case, stream
from plugins.house.model import DEVICES, ROOMS, SENSORS, catalogue
from plugins.house.player import Player
from plugins.house.process import read_action
from plugins.house.resident import Resident
from plugins.override import Override
from plugins.simulated_home import SimulatedHome
from runtime.errors import BadInput, Unavailable
from runtime.messages import (
    NOTHING,
    Action,
    Command,
    Decision,
    Feedback,
    Message,
    Observation,
    Outcome,
    Percept,
    derived_id,
)

BROKER = """
id = 0
[router]
id = 0
max_connections = 20
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
  [v5.1.connections]
  connection_timeout_ms = 60000
  max_payload_size = 204800
  max_inflight_count = 100
  dynamic_filters = true
"""


class Daemon:
    """What the runtime does around a home, in a few lines: every trigger becomes a percept, a decision, a command."""

    def __init__(self, home: SimulatedHome, cases: list[Case], wrong_every: int) -> None:
        self.home = home
        self.cases = cases
        self.wrong_every = wrong_every
        self.override = Override(actuators=["*_lamp", "*_blind", "*_fan", "*_heating"])
        self.observations: list[Observation] = []
        self.feedback: list[Feedback] = []
        self.decided: list[Decision] = []
        self.done = asyncio.Event()

    async def emit(self, message: Observation | Feedback) -> None:
        if isinstance(message, Feedback):
            self.feedback.append(message)
            return
        self.observations.append(message)
        self._tell(message)
        room = message.topic.removeprefix("home/").removesuffix("/speech")
        if room in ROOMS:
            asyncio.get_running_loop().create_task(self._decide(message, room))

    def _tell(self, message: Observation | Percept | Decision | Command | Outcome) -> None:
        self.feedback.extend(self.override.criticise(message))
        self.feedback.extend(self.home.criticise(message))

    async def _decide(self, message: Observation, room: str) -> None:
        case = self.cases[len(self.decided)]
        percept = Percept(id=f"pc-{message.id}", scope=room, text="", at=message.at, causes=(message.id,))
        wrong = len(self.decided) % self.wrong_every == 0
        finite = catalogue(room).finite()
        action = next(a for a in finite if not case.accepts(a)) if wrong else case.right
        decision = Decision(
            id=derived_id("dc", percept.id), percept_id=percept.id, scope=room, actions=(action,), by="model",
            adapter="base", p_model=0.5, p_behaviour=1.0, at=message.at,
        )  # fmt: skip
        self.decided.append(decision)
        self._tell(percept)
        self._tell(decision)
        outcome = Outcome(id=f"oc-{message.id}", decision_id=decision.id, command_id=None, status="none", at=message.at)
        if action != NOTHING:
            command = Command(
                id=f"cm-{message.id}", decision_id=decision.id, actuator=action.tool, action=action,
                expires_at=message.at + 30, at=message.at,
            )  # fmt: skip
            self._tell(command)
            outcome = await self.home.act(command)
        self._tell(outcome)
        if len(self.decided) == len(self.cases):
            self.done.set()


async def test_the_plugin_plays_and_its_resident_teaches(cases: list[Case]) -> None:
    home = SimulatedHome(seed=1, situations=len(cases), seconds=0.0, patience=10.0)
    daemon = Daemon(home, cases, wrong_every=3)
    sensing = asyncio.create_task(home.sense(daemon.emit))
    async with asyncio.timeout(20):
        await daemon.done.wait()
    sensing.cancel()
    with suppress(asyncio.CancelledError):
        await sensing
    right = {decision.id: case.right for decision, case in zip(daemon.decided, cases, strict=True)}
    taught = {f.decision_id: f.action for f in daemon.feedback if f.kind in ("correction", "override")}
    wrong = [d.id for d, case in zip(daemon.decided, cases, strict=True) if not case.accepts(d.actions[0])]
    assert len(wrong) >= len(cases) / 3
    assert set(wrong[:-1]) <= set(taught)  # the last may have been cut off
    assert all(right[decision] == action for decision, action in taught.items())
    assert {f.kind for f in daemon.feedback} == {"correction", "override", "acceptance"}
    origins = Counter(
        json.loads(o.payload).get("by")
        for o in daemon.observations
        if o.topic.count("/") == 2 and b"state" in o.payload
    )
    assert {"timer", "app", "guest Tom", "Ana", None} <= set(origins)  # the device's own echo names nobody
    names = {f"{room}/{name}" for room, sensors in SENSORS.items() for name in sensors}
    topics = {o.topic for o in daemon.observations}
    assert {f"home/{name}" for name in names if name.startswith("outside/")} <= topics


async def test_act_says_what_is_wrong() -> None:
    home = SimulatedHome()
    action = Action(tool="hall_lamp", arguments={"level": "purple"})
    command = Command(id="c", decision_id="d", actuator="hall_lamp", action=action, expires_at=9e9, at=0.0)
    with pytest.raises(Unavailable, match="not started"):
        await home.act(command)
    home._player = Player(home, Resident(1), lambda event: None)
    with pytest.raises(BadInput, match="purple"):
        await home.act(command)


@pytest.fixture
def cases() -> list[Case]:
    return stream(1, 60)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    config = tmp_path / "broker.toml"
    config.write_text(BROKER.format(port=number))
    broker = Broker(config_path=str(config))
    broker.start()
    yield number
    broker.stop()


class Agent:
    """A stand-in for the daemon at the other side of the broker: acknowledges, decides by the labels, commands."""

    def __init__(self, client: aiomqtt.Client, cases: list[Case], *, deaf: int = 0) -> None:
        self.client = client
        self.cases = cases
        self.deaf = deaf  # messages that are not acknowledged at first
        self.heard: dict[str, list[Any]] = {}
        self.ids: set[str] = set()
        self.copies = 0

    async def run(self) -> None:
        await self.client.subscribe("home/#", qos=1)
        await self.client.subscribe("corrigible/corrigible/feedback", qos=1)
        async for message in self.client.messages:
            await self._take(message)

    async def _take(self, message: aiomqtt.Message) -> None:
        topic, body = str(message.topic), message.payload
        if topic.endswith("/set"):
            return
        properties = dict(getattr(message.properties, "UserProperty", ()))
        if self.deaf:
            self.deaf -= 1
            return
        ids = json.dumps({"ids": [properties["id"]]})
        await self.client.publish(f"corrigible/corrigible/ack/{properties['producer']}", ids, qos=1)
        if properties["id"] in self.ids:
            self.copies += 1
            return
        self.ids.add(properties["id"])
        assert isinstance(body, bytes)
        self.heard.setdefault(topic, []).append(json.loads(body))
        room = topic.removeprefix("home/").removesuffix("/speech")
        if room in ROOMS:
            kind = "speech" if topic.endswith("/speech") else "sensor"
            await self._decide(room, derived_id("pc", room, kind, f"{topic}:{properties['id']}", ""))

    async def _decide(self, room: str, percept: str) -> None:
        case = self.cases.pop(0)
        action = next(a for a in catalogue(room).finite() if not case.accepts(a)) if len(self.cases) % 2 else case.right
        text = catalogue(room).render(action)
        decision = {
            "id": f"dc-{percept}",
            "percept": percept,
            "text": text,
            "action": text,
            "by": "model",
            "adapter": "base",
        }
        await self.client.publish(f"corrigible/corrigible/decision/{room}", json.dumps(decision), qos=1)
        device = next((d for d in DEVICES if d.actuator == action.tool), None)
        if device is not None:
            await self.client.publish(f"{device.topic}/set", str(action.arguments["level"]), qos=1)


async def _home(port: int, *options: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "plugins.simulated_home", "--port", str(port), "--count", "60", "--patience", "20", *options,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def _events(home: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert home.stdout is not None
    async for line in home.stdout:
        yield json.loads(line)


async def test_the_process_tells_its_story_over_mqtt(port: int, cases: list[Case]) -> None:
    async with asyncio.timeout(60), aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        agent = Agent(client, list(cases[:12]), deaf=2)
        running = asyncio.create_task(agent.run())
        home = await _home(port, "--controlled")
        assert home.stdin is not None
        home.stdin.write(b'{"next": 12}\n{"stop": true}\n')
        events = [event async for event in _events(home)]
        await home.wait()
        running.cancel()
    kinds = [event["event"] for event in events]
    assert kinds[0] == "connected"
    assert kinds[-2:] == ["idle", "done"]
    assert events[-1]["resent"] >= 1  # nobody was listening at first, then it was deaf
    decided = [event for event in events if event["event"] == "decision"]
    assert [event["right"] for event in decided] == [number % 2 == 1 for number in range(12)]
    assert all(event["carried_out"] for event in decided)
    answers = {event["number"]: event["event"] for event in events if event["event"] in ("override", "correction")}
    assert set(answers) == {event["number"] for event in decided if not event["right"]}
    said = agent.heard["corrigible/corrigible/feedback"]
    assert sum("correct" in message for message in said) == sum(kind == "correction" for kind in answers.values())
    assert all(
        cases[number].right_text in {m.get("correct") for m in said}
        for number, k in answers.items()
        if k == "correction"
    )


async def test_a_situation_can_be_played_again_and_nobody_answers(port: int, cases: list[Case]) -> None:
    async with asyncio.timeout(60), aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        agent = Agent(client, [cases[0], cases[0], cases[0]])
        running = asyncio.create_task(agent.run())
        home = await _home(port, "--controlled")
        assert home.stdin is not None
        home.stdin.write(b'{"next": 1}\n{"again": 0}\n{"stop": true}\n')
        events = [event async for event in _events(home)]
        await home.wait()
        running.cancel()
    after_first = events[[event["event"] for event in events].index("idle") :]
    kinds = [event["event"] for event in after_first if event["event"] != "safe"]
    assert kinds == ["idle", "interlude", "situation", "decision", "idle", "done"]
    pictures = agent.heard[f"home/{cases[0].room}"]
    assert pictures[0] == pictures[2] != pictures[1]


def test_a_decision_is_read_in_either_form() -> None:
    on = Action(tool="hall_lamp", arguments={"level": "dim"})
    assert read_action({"action": "hall_lamp dim"}, "hall") == on
    assert read_action({"action": {"tool": "hall_lamp", "arguments": {"level": "dim"}}, "text": "x"}, "hall") == on
    assert read_action({"action": None, "text": "hall_lamp dim"}, "hall") == on
    assert read_action({"action": "sing"}, "hall") == NOTHING


def test_messages_round_trip(cases: list[Case]) -> None:
    for case in cases:
        for _, value in case.observations():
            assert json.loads(json.dumps(value)) == value
        assert isinstance(case.right, Message)
