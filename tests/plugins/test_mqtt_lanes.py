"""A crowd of sensor messages: what may be lost is counted, what may not waits at the broker, and nobody's word waits for either."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiomqtt

from plugins.broker import Broker
from plugins.mqtt_client import IN_FLIGHT
from plugins.mqtt_inbox import AT_ONCE, SPARE
from runtime.messages import Feedback, Observation
from tests.chaos.proxy import Proxy
from tests.plugins.conftest import until
from tests.plugins.test_mqtt import Door, made, producer, running

CROWD = 2 * SPARE


@dataclass
class Jammed(Door):
    """A journal that has no room for observations until it is opened; feedback goes through."""

    feedback: list[str] = field(default_factory=list)

    async def emit(self, message: Observation | Feedback) -> None:
        if isinstance(message, Feedback):
            self.feedback.append(message.decision_id)
            return
        await super().emit(message)


@dataclass
class Shed:
    """Stands for the runtime's counts."""

    counts: Counter[str] = field(default_factory=Counter)

    def count(self, name: str) -> None:
        self.counts[name] += 1


async def crowd(broker: Broker, topic: str, qos: int) -> None:
    version = aiomqtt.ProtocolVersion.V5
    async with aiomqtt.Client(broker.config.host, broker.config.port, protocol=version) as client:
        for number in range(CROWD):
            await client.publish(topic, str(number), qos=qos)


async def test_offered_is_taken_and_let_go(broker: Broker, tmp_path: Path) -> None:
    """Of telemetry nothing is missing in the sum, and what waits for the journal is bounded."""
    plugin, door, shed = made(broker, tmp_path), Jammed(), Shed()
    plugin.telemetry = ["home/+/power"]  # `sensors` covers it, too
    plugin.context = replace(plugin.context, shed=shed.count)
    async with running(plugin, door):
        await crowd(broker, "home/room/power", qos=1)
        await until(lambda: shed.counts["home/+/power"] == CROWD - SPARE)
        assert door.started == AT_ONCE
        door.open.set()
        await until(lambda: door.emitted == SPARE)
        assert len(door.kept) + shed.counts.total() == CROWD


async def test_what_comes_at_qos_0_may_be_lost_but_is_counted(broker: Broker, tmp_path: Path) -> None:
    """The embedded broker makes QoS 1 of it, and keeps it; then all of it comes in the end."""
    plugin, door, shed = made(broker, tmp_path), Jammed(), Shed()
    plugin.context = replace(plugin.context, shed=shed.count)
    async with running(plugin, door):
        await crowd(broker, "home/room/light", qos=0)
        await until(lambda: shed.counts["qos 0"] == CROWD - SPARE or door.started >= IN_FLIGHT)
        door.open.set()
        await until(lambda: len(door.kept) + shed.counts["qos 0"] == CROWD)


async def test_what_may_not_be_lost_waits_at_the_broker_and_nobody_waits_for_it(broker: Broker, tmp_path: Path) -> None:
    plugin, door, shed, switched = made(broker, tmp_path), Jammed(), Shed(), list[bool]()
    plugin.context = replace(plugin.context, shed=shed.count, kill=switched.append)
    async with running(plugin, door), producer(broker) as house:
        await crowd(broker, "home/room/light", qos=1)
        await until(lambda: door.started >= IN_FLIGHT)
        await house.send("corrigible/test/feedback", {"decision": "de-1", "rating": 1})
        await house.send("corrigible/test/kill", "on")
        assert (door.feedback, switched) == (["de-1"], [True])
        assert door.started <= 2 * IN_FLIGHT
        door.open.set()
        await until(lambda: len(door.kept) == CROWD)
    assert not shed.counts


async def test_a_producer_that_waits_for_our_word_is_never_let_go(broker: Broker, tmp_path: Path) -> None:
    plugin, door, shed = made(broker, tmp_path), Jammed(), Shed()
    plugin.telemetry = ["home/+/+"]
    plugin.context = replace(plugin.context, shed=shed.count)
    async with running(plugin, door), producer(broker) as house:
        await crowd(broker, "home/room/light", qos=0)
        await until(lambda: shed.counts.total() == CROWD - SPARE)
        sending = asyncio.create_task(house.send("home/room/light", 7, id="m1"))
        await until(lambda: door.started == AT_ONCE + 1)
        door.open.set()
        await sending
    assert "home/room/light:m1" in door.kept


async def test_a_link_that_broke_with_a_full_window_is_taken_up_again(broker: Broker, tmp_path: Path) -> None:
    """The embedded broker answers no subscription before what it had sent is acknowledged. Found by chaos."""
    plugin, door = made(broker, tmp_path), Jammed()
    async with Proxy(broker.config.port).listening() as link:
        through = broker.config.model_copy(update={"port": link.port})
        plugin.context = replace(plugin.context, broker=through)
        async with running(plugin, door):
            await crowd(broker, "home/room/light", qos=1)
            await until(lambda: door.started >= IN_FLIGHT)
            assert link.cut()
            door.open.set()
            await until(lambda: len(door.kept) >= CROWD)
