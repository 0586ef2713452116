"""The MQTT plugin over real brokers: what comes in, what goes out, what is acknowledged when, and what hostile bytes do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from plugins.broker import Broker
from plugins.mqtt import Mqtt
from plugins.mqtt_actor import Actor
from plugins.mqtt_client import DurableClient
from plugins.mqtt_device import Device
from runtime import payload
from runtime.config import BrokerConfig
from runtime.errors import BadConfig, BadInput, NotFound
from runtime.messages import Action, Command, Decision, Feedback, Observation, Percept
from runtime.roles import Context
from tests.plugins.conftest import until

LAMP = Device(
    name="lamp", scope="room", topic="home/room/lamp/set", values=["off", "dim"], state_topic="home/room/lamp"
)
FAN = Device(name="fan", scope="room", topic="home/room/fan/set", values=["off", "on"], confirm="ack")
BELL = Device(name="bell", scope="hall", topic="home/hall/bell/set", values=["ring"])


@dataclass
class Door:
    """Stands for the runtime: keeps what is emitted by id, refuses what the runtime refuses, and can be held shut."""

    kept: dict[str, Observation | Feedback] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    emitted: int = 0
    started: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def emit(self, message: Observation | Feedback) -> None:
        self.started += 1
        await self.open.wait()
        self.emitted += 1
        if isinstance(message, Feedback) and message.decision_id != "de-1":
            self.refused.append(message.note)
            raise NotFound(f"no decision {message.decision_id!r}")
        if isinstance(message, Observation):
            try:
                payload.parse_scalar(message.payload)
            except BadInput as error:
                self.refused.append(str(error))
                raise
        self.kept[message.id] = message


def made(broker: Broker, tmp_path: Path) -> Mqtt:
    plugin = Mqtt(sensors=["home/+/+"], actuators=[LAMP, FAN, BELL])
    plugin.name = "Mqtt"
    plugin.context = Context(agent="test", data=tmp_path, broker=broker.config, zone=ZoneInfo("UTC"))
    return plugin


@asynccontextmanager
async def running(plugin: Mqtt, door: Door) -> AsyncIterator[Mqtt]:
    task = asyncio.create_task(plugin.sense(door.emit))
    await until(lambda: plugin.connected or task.done())
    try:
        yield plugin
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def producer(broker: Broker, *topics: str, name: str = "house") -> AsyncIterator[Actor]:
    actor = Actor(broker.config.host, broker.config.port, producer=name, agent="test", topics=topics)
    async with actor.connected():
        yield actor


def opened() -> Door:
    door = Door()
    door.open.set()
    return door


def command(actuator: str, value: str, seconds: float = 20.0) -> Command:
    now = time.time()
    action = Action(tool=actuator, arguments={"level": value})
    return Command(id="cm-1", decision_id="de-1", actuator=actuator, action=action, expires_at=now + seconds, at=now)


async def test_an_observation_comes_in_with_its_id_and_is_acknowledged(broker: Broker, tmp_path: Path) -> None:
    door = opened()
    async with running(made(broker, tmp_path), door), producer(broker) as house:
        await house.send("home/room/light", 12.5, id="m1")
        await house.send("home/room/light", 13, id="m1")  # the same message again
    (observation,) = door.kept.values()
    assert isinstance(observation, Observation)
    assert (observation.id, observation.topic, observation.source) == ("home/room/light:m1", "home/room/light", "mqtt")
    assert observation.properties == {"producer": "house", "id": "m1"}
    assert door.emitted == 2


async def test_the_kill_topic_is_a_switch_that_only_a_clear_word_takes_off(broker: Broker, tmp_path: Path) -> None:
    plugin, switched = made(broker, tmp_path), list[bool]()
    plugin.context = replace(plugin.context, kill=switched.append)
    async with running(plugin, opened()), producer(broker) as house:
        for number, word in enumerate(["on", "offf", 7, "off", "OFF", True, False]):
            await house.send("corrigible/test/kill", word, id=f"k{number}")
    assert switched == [True, True, True, False, False, True, False]


@pytest.mark.parametrize(("kept", "pulled"), [("off", [True]), ("on", [True, True])])
async def test_what_the_broker_kept_of_the_kill_topic_pulls_and_never_lifts(
    broker: Broker, tmp_path: Path, kept: str, pulled: list[bool]
) -> None:
    plugin, switched = made(broker, tmp_path), list[bool]()
    plugin.context = replace(plugin.context, kill=switched.append)
    async with DurableClient(broker.config, identifier="person") as person:
        await person.publish("corrigible/test/kill", kept, qos=1, retain=True)
    async with running(plugin, opened()), producer(broker) as house:
        await house.send("corrigible/test/kill", "on")  # after the kept one, which comes with the subscription
    assert switched == pulled


async def test_what_the_guard_stops_is_not_sent_again(broker: Broker, tmp_path: Path) -> None:
    plugin, asked = made(broker, tmp_path), list[Command]()

    def permits(command: Command) -> str | None:
        asked.append(command)
        return "the kill switch is on" if len(asked) > 1 else None

    plugin.context = replace(plugin.context, permits=permits)
    async with running(plugin, opened()):
        outcome = await plugin.act(command(FAN.name, "on"))  # nobody confirms it
    assert (outcome.status, len(asked)) == ("uncertain", 2)
    assert "not sent again: the kill switch is on" in outcome.reason


async def test_nothing_is_acknowledged_before_the_journal_has_it(broker: Broker, tmp_path: Path) -> None:
    shut = Door()
    async with producer(broker) as house:
        async with running(made(broker, tmp_path), shut):
            sending = asyncio.create_task(house.send("home/room/light", 1, id="m1"))
            await until(lambda: shut.started)
            assert not sending.done()
        # the daemon went down before the commit: the broker, or the producer, gives it to the next one
        door = opened()
        async with running(made(broker, tmp_path), door):
            await sending
    assert list(door.kept) == ["home/room/light:m1"]


async def test_what_was_not_acknowledged_is_delivered_again(broker: Broker, tmp_path: Path) -> None:
    """The broker's part alone: the producer publishes once and is gone."""
    shut, door = Door(), opened()
    async with running(made(broker, tmp_path), shut):
        async with DurableClient(broker.config, identifier="once") as client:
            await client.publish("home/room/light", b"1", qos=1)
        await until(lambda: shut.started)
    async with DurableClient(broker.config, identifier="once") as client:
        await client.publish("home/room/light", b"2", qos=1)  # while nobody is there: the session is persistent
    async with running(made(broker, tmp_path), door):
        await until(lambda: {m.payload for m in door.kept.values() if isinstance(m, Observation)} >= {b"1", b"2"})


async def test_a_killed_broker_loses_nothing_of_a_producer_that_resends(broker: Broker, tmp_path: Path) -> None:
    door = opened()
    async with running(made(broker, tmp_path), door), producer(broker) as house:

        async def send(number: int) -> None:
            await house.send(f"home/room/{number % 7}", number, id=f"m{number}")

        first = asyncio.gather(*(send(n) for n in range(100)))
        await until(lambda: len(door.kept) > 20)
        pid = broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(first, *(send(n) for n in range(100, 150)))
    assert broker.restarts == 1
    values = sorted(json.loads(m.payload) for m in door.kept.values() if isinstance(m, Observation))
    assert values == list(range(150))


async def test_a_command_is_confirmed_by_the_state(broker: Broker, tmp_path: Path) -> None:
    async with running(made(broker, tmp_path), opened()) as plugin, producer(broker, LAMP.topic) as house:
        acting = asyncio.create_task(plugin.act(command("lamp", "dim")))
        heard = await house.hear()
        assert heard.payload == b"dim"
        assert heard.properties["cmd_id"] == "cm-1"
        await house.send(LAMP.state_topic, {"state": "off"})
        assert not acting.done()
        await house.send(LAMP.state_topic, {"state": "dim"})
        assert (await acting).status == "applied"


async def test_a_command_is_sent_again_until_the_device_says_done(broker: Broker, tmp_path: Path) -> None:
    async with running(made(broker, tmp_path), opened()) as plugin, producer(broker, FAN.topic) as house:
        acting = asyncio.create_task(plugin.act(command("fan", "on")))
        first, second = await house.hear(), await house.hear()
        assert first.properties["cmd_id"] == second.properties["cmd_id"] == "cm-1"
        await house.send("corrigible/test/applied", {"cmd_id": "cm-1"})
        assert (await acting).status == "applied"
        acting = asyncio.create_task(plugin.act(command("fan", "off")))
        await house.hear()
        await house.send("corrigible/test/applied", {"cmd_id": "cm-1", "error": "jammed"})
        outcome = await acting
        assert (outcome.status, outcome.reason) == ("failed", "jammed")


async def test_a_device_that_says_nothing_and_one_that_never_does(broker: Broker, tmp_path: Path) -> None:
    async with running(made(broker, tmp_path), opened()) as plugin:
        assert (await plugin.act(command("lamp", "dim", seconds=0.5))).status == "expired"
        assert (await plugin.act(command("bell", "ring"))).status == "sent"
        with pytest.raises(NotFound):
            await plugin.act(command("oven", "on"))
    expired = await plugin.act(command("bell", "ring", seconds=0.2))
    assert (expired.status, expired.reason) == ("expired", "there is no connection to the broker")


@pytest.mark.parametrize("once", [False, True])
async def test_a_clock_that_was_ahead_makes_no_command_live_longer_on_the_wire(tmp_path: Path, once: bool) -> None:
    """Made while the clock was an hour ahead, sent after it was put right: broker and device hear of 30 s, not of 3630."""
    plugin, told = Mqtt(actuators=[msgspec.structs.replace(BELL, once=once)]), list[Properties]()
    plugin.context = Context(agent="test", data=tmp_path, broker=BrokerConfig(), zone=ZoneInfo("UTC"))

    async def publish(topic: str, body: bytes, *, properties: Properties, **more: Any) -> None:
        told.append(properties)

    plugin._client = cast(DurableClient, SimpleNamespace(publish=publish))
    plugin._online.set()
    ahead = time.time() + 3600
    made_ahead = msgspec.structs.replace(command("bell", "ring"), at=ahead, expires_at=ahead + 30)
    assert (await plugin.act(made_ahead)).status == "sent"
    (properties,) = told
    assert 1 <= properties.MessageExpiryInterval <= 30
    assert float(dict(properties.UserProperty)["not_after"]) <= time.time() + 30.001  # it is rounded to milliseconds


async def test_commands_are_not_retained(broker: Broker, tmp_path: Path) -> None:
    async with running(made(broker, tmp_path), opened()) as plugin:
        await plugin.act(command("bell", "ring"))
        async with DurableClient(broker.config, identifier="late") as client:
            await client.subscribe_all([BELL.topic, "corrigible/test/bridge/state"])
            message = await anext(client.messages)
            assert (str(message.topic), message.payload, message.retain) == (
                "corrigible/test/bridge/state",
                b"online",
                True,
            )
            client.ack(message)
    async with DurableClient(broker.config, identifier="later") as client:
        await client.subscribe_all(["corrigible/test/bridge/state"])
        assert (await anext(client.messages)).payload == b"offline"


async def test_feedback_comes_in_and_is_answered(broker: Broker, tmp_path: Path) -> None:
    door, topic = opened(), "corrigible/test/feedback"
    async with running(made(broker, tmp_path), door), producer(broker, f"{topic}/response") as person:
        await person.send(topic, {"decision": "de-1", "correct": "lamp dim"}, id="f1")
        answer = json.loads((await person.hear()).payload)
        assert answer == {"status": "ok", "id": next(iter(door.kept)), "decision": "de-1"}
        await person.send(topic, {"decision": "de-9", "accept": True}, id="f2")
        assert json.loads((await person.hear()).payload)["error"] == "no decision 'de-9'"
        await person.send(topic, {"decision": "de-9"}, id="f3")
        assert "exactly one" in json.loads((await person.hear()).payload)["error"]
    (feedback,) = door.kept.values()
    assert isinstance(feedback, Feedback)
    assert feedback.action == Action(tool="text", arguments={"text": "lamp dim"})
    assert len(door.refused) == 2
    assert "exactly one" in door.refused[1]


async def test_a_response_topic_is_used_but_never_a_device(broker: Broker, tmp_path: Path) -> None:
    body = b'{"decision": "de-1", "accept": true}'
    async with running(made(broker, tmp_path), opened()), DurableClient(broker.config, identifier="asks") as client:
        await client.subscribe_all(["answers/me", "corrigible/test/feedback/response", LAMP.topic])
        for asked in ("answers/me", LAMP.topic):
            properties = Properties(PacketTypes.PUBLISH)
            properties.ResponseTopic, properties.CorrelationData = asked, b"c1"
            await client.publish("corrigible/test/feedback", body, qos=1, properties=properties)
        answers = [await anext(client.messages), await anext(client.messages)]
        assert [str(m.topic) for m in answers] == ["answers/me", "corrigible/test/feedback/response"]
        assert getattr(answers[0].properties, "CorrelationData", None) == b"c1"


async def test_hostile_payloads_are_refused_and_the_plugin_goes_on(broker: Broker, tmp_path: Path) -> None:
    door = opened()
    hostile = [
        b"\xff\xfe",
        b"[" * 60000,
        b"x" * 1_100_000,
        b'{"a": NaN}',
        b"1e999",
        b"",
        b'{"a":1,"a":2}',
        b'"\\ud800"',
        b"a\x00b",
    ]
    async with running(made(broker, tmp_path), door):
        async with DurableClient(broker.config, identifier="enemy") as client:
            for topic in ("home/room/light", "corrigible/test/feedback", "corrigible/test/applied", LAMP.state_topic):
                for body in hostile:
                    await client.publish(topic, body, qos=1)
            properties = Properties(PacketTypes.PUBLISH)
            properties.UserProperty = [("id", "i" * 5000), ("producer", "#/+"), *(("k", "v") for _ in range(100))]
            await client.publish("home/room/light", b"7", qos=1, properties=properties)
            await client.publish("home/room/" + "t" * 5000, b"8", qos=1)
        await until(lambda: len(door.kept) == 2)
    assert len(door.refused) == 3 * len(hostile)
    assert all(
        len(m.id) < 300 + len(m.topic) and len(m.properties) <= 16
        for m in door.kept.values()
        if isinstance(m, Observation)
    )


async def test_decisions_are_published(broker: Broker, tmp_path: Path) -> None:
    async with (
        running(made(broker, tmp_path), opened()) as plugin,
        producer(broker, "corrigible/test/decision/+") as house,
    ):
        plugin.criticise(Percept(id="pc-1", scope="room", text="it is dark", at=1.0))
        action = Action(tool="lamp", arguments={"level": "dim"})
        decision = Decision(
            id="de-1",
            percept_id="pc-1",
            scope="room",
            actions=(action,),
            by="model",
            adapter="base",
            p_model=0.5,
            p_behaviour=1.0,
            chance=0.4,
            choices=(action, Action(tool="nothing")),
            at=1.0,
        )
        assert plugin.criticise(decision) == ()
        heard = await house.hear()
    assert heard.topic == "corrigible/test/decision/room"
    assert json.loads(heard.payload) == {
        "id": "de-1", "percept": "pc-1", "scope": "room", "text": "it is dark", "action": "lamp dim",
        "actions": [{"tool": "lamp", "arguments": {"level": "dim"}}], "by": "model", "adapter": "base", "p": 0.5,
        "chance": 0.4, "choices": ["lamp dim", "nothing"],
    }  # fmt: skip


async def test_many_at_once_come_in_order_of_arrival(broker: Broker, tmp_path: Path) -> None:
    door = opened()
    async with running(made(broker, tmp_path), door):
        async with DurableClient(broker.config, identifier="fast") as client:
            for number in range(300):
                await client.publish("home/room/light", str(number), qos=1)
        await until(lambda: len(door.kept) == 300)
    assert [m.payload for m in door.kept.values() if isinstance(m, Observation)] == [
        str(n).encode() for n in range(300)
    ]


def test_settings_that_cannot_work_are_one_sentence() -> None:
    with pytest.raises(BadConfig, match="topic filter"):
        Mqtt(sensors=["home/#/light"])
    with pytest.raises(BadConfig, match="two actuators"):
        Mqtt(actuators=[LAMP, LAMP])
    assert set(Mqtt(actuators=[LAMP, FAN, BELL]).tools()) == {"room", "hall"}


async def test_a_broker_that_is_away_is_tried_again(broker: Broker, tmp_path: Path) -> None:
    plugin = made(broker, tmp_path)
    away = broker.config.model_copy(update={"port": 1})
    plugin.context = Context(agent="test", data=tmp_path, broker=away, zone=ZoneInfo("UTC"))
    task = asyncio.create_task(plugin.sense(opened().emit))
    await asyncio.sleep(0)
    assert not task.done()
    plugin.context = Context(agent="test", data=tmp_path, broker=broker.config, zone=ZoneInfo("UTC"))
    await until(lambda: plugin.connected)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
