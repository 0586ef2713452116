"""A producer that does not give up: lost acknowledgements, a broker that was not there, one that was killed."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import aiomqtt
import pytest
from iotcore import Broker
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from plugins import mqtt_actor
from plugins.mqtt_actor import Actor

from .test_simulated_home import BROKER


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_actor, "RESEND", 0.2)
    monkeypatch.setattr(mqtt_actor, "BACKOFF", (0.02, 0.1))


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


@pytest.fixture
def broker(port: int, tmp_path: Path) -> Iterator[Broker]:
    config = tmp_path / "broker.toml"
    config.write_text(BROKER.format(port=port))
    broker = Broker(config_path=str(config))
    yield broker
    broker.stop()


def _actor(port: int) -> Actor:
    return Actor("127.0.0.1", port, producer="p1", agent="corrigible", topics=("home/+/set",))


async def _acknowledge(port: int, received: list[str], *, after: int = 0) -> None:
    """The agent's side: answers from the copy number `after` on."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        await client.subscribe("home/#", qos=1)
        async for message in client.messages:
            if str(message.topic).endswith("/set"):
                continue
            properties = dict(getattr(message.properties, "UserProperty", ()))
            received.append(properties["id"])
            if len(received) > after:
                topic = f"corrigible/corrigible/ack/{properties['producer']}"
                await client.publish(topic, "not an acknowledgement", qos=1)
                await client.publish(topic, json.dumps({"ids": ["other", properties["id"]]}), qos=1)


async def test_a_message_is_sent_again_with_the_same_id_until_it_is_acknowledged(port: int, broker: Broker) -> None:
    broker.start()
    received: list[str] = []
    async with asyncio.timeout(20), _actor(port).connected() as actor:
        agent = asyncio.create_task(_acknowledge(port, received, after=2))
        identity = await actor.send("home/hall", {"light": 3})
        agent.cancel()
    assert received[:3] == [identity] * 3
    assert actor.resent >= 2


async def test_a_turn_ends_without_an_acknowledgement(port: int, broker: Broker) -> None:
    broker.start()
    async with asyncio.timeout(20), _actor(port).connected() as actor:
        assert not await actor.deliver("home/hall", b"1", "m-1", {"id": "m-1"}, turn=2)
        assert actor.resent == 1
        assert not await actor.deliver("home/hall", b"1", "m-1", {"id": "m-1"}, before=2, turn=1)
    assert actor.resent == 2  # a later turn sends nothing for the first time


async def test_it_comes_through_although_the_broker_was_killed(port: int, broker: Broker) -> None:
    broker.start()
    received: list[str] = []
    async with asyncio.timeout(30), _actor(port).connected() as actor:
        await asyncio.to_thread(broker.stop)
        sending = asyncio.create_task(actor.send("home/hall", {"light": 3}, id="m-1"))
        await asyncio.to_thread(broker.start)
        agent = asyncio.create_task(_acknowledge(port, received))
        assert await sending == "m-1"
        agent.cancel()
    assert set(received) == {"m-1"}


async def test_it_waits_for_a_broker_that_is_not_there_yet(port: int, broker: Broker) -> None:
    received: list[str] = []

    async def live() -> str:
        async with _actor(port).connected() as actor:
            return await actor.send("home/hall", 1, id="m-2")

    async with asyncio.timeout(30):
        sending = asyncio.create_task(live())
        await asyncio.to_thread(broker.start)
        agent = asyncio.create_task(_acknowledge(port, received))
        assert await sending == "m-2"
        agent.cancel()


async def test_it_hears_its_topics_with_their_properties(port: int, broker: Broker) -> None:
    broker.start()
    async with asyncio.timeout(20), _actor(port).connected() as actor:
        async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
            properties = Properties(PacketTypes.PUBLISH)
            properties.UserProperty = [("cmd_id", "cm-1")]
            await client.publish("home/lamp/set", "dim", qos=1, properties=properties)
        heard = await actor.hear()
    assert (heard.topic, heard.payload, heard.properties) == ("home/lamp/set", b"dim", {"cmd_id": "cm-1"})
