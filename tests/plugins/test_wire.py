"""plugins/WIRE.md cannot lie: every example in it is sent to the real plugin, or is what the real plugin sends."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from plugins.broker import Broker
from plugins.mqtt import Mqtt
from plugins.mqtt_actor import Heard
from plugins.mqtt_client import DurableClient
from plugins.mqtt_device import Device
from plugins.mqtt_effector import Effector
from runtime.bus import Bus
from runtime.catalogue import DO_NOTHING, Catalogue
from runtime.ingest import Ingest
from runtime.journal import Journal
from runtime.messages import Action, Command, Observation
from runtime.metrics import Metrics
from runtime.table import CorrectionTable
from tests.plugins.conftest import until
from tests.plugins.test_mqtt import made
from tests.plugins.test_mqtt_faults import ROOT

WIRE = (ROOT / "plugins" / "WIRE.md").read_text(encoding="utf-8")
EXAMPLES: dict[str, Any] = {
    name: json.loads(body) for name, body in re.findall(r"^```json ([\w-]+)\n(.*?)^```", WIRE, re.MULTILINE | re.DOTALL)
}
VALVE = Device(
    name="valve", scope="greenhouse", topic="home/greenhouse/valve/set", values=["open", "closed"],
    payload='{"valve": "$value"}', confirm="ack",
)  # fmt: skip
EVENT, AGENT = "home/greenhouse/climate", "corrigible/test"
pytestmark = pytest.mark.parametrize("broker", ["embedded"], indirect=True)


@dataclass
class House:
    """The plugin with a real journal behind it, and a device that speaks by the document alone."""

    plugin: Mqtt
    journal: Journal
    device: DurableClient

    async def says(self, topic: str, body: object, properties: dict[str, str]) -> None:
        told = Properties(PacketTypes.PUBLISH)
        told.UserProperty = list(properties.items())
        await self.device.publish(topic, json.dumps(body), qos=1, properties=told)

    async def hears(self, topic: str) -> aiomqtt.Message:
        async with asyncio.timeout(20):
            async for message in self.device.messages:
                if str(message.topic) == topic:
                    return message
        raise AssertionError

    async def observations(self) -> list[Observation]:
        return await self.journal.unperceived()


@asynccontextmanager
async def house(broker: Broker, tmp_path: Path, valve: Device = VALVE) -> AsyncIterator[House]:
    plugin = Mqtt(sensors=["home/+/+"], actuators=[valve], lease=10.0)
    plugin.name, plugin.context = "Mqtt", replace(made(broker, tmp_path).context, fence=7)
    async with (
        Journal.open(tmp_path / "journal.db") as journal,
        DurableClient(broker.config, identifier="greenhouse") as device,
    ):
        ingest = Ingest(journal, Bus(), CorrectionTable(), lambda scope: Catalogue(tools=(DO_NOTHING,)), Metrics())
        await device.subscribe_all([f"{AGENT}/ack/greenhouse", f"{AGENT}/alive", VALVE.topic])
        sensing = asyncio.create_task(plugin.sense(ingest.emit))
        await until(lambda: plugin.connected or sensing.done())
        yield House(plugin, journal, device)
        sensing.cancel()
        with suppress(asyncio.CancelledError):
            await sensing


def command() -> Command:
    told = EXAMPLES["command-properties"]
    action = Action(tool="valve", arguments={"level": "open"})
    return Command(
        id=told["cmd_id"], decision_id="de-1", actuator="valve", action=action, at=0.0,
        expires_at=float(told["not_after"]),
    )  # fmt: skip


def told(message: aiomqtt.Message) -> dict[str, str]:
    return dict(getattr(message.properties, "UserProperty", ()))


async def test_an_event_is_journalled_once_and_acknowledged_as_it_says(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        for _ in range(2):
            await home.says(EVENT, EXAMPLES["event"], EXAMPLES["event-properties"])
            ack = await home.hears(f"{AGENT}/ack/greenhouse")
            assert json.loads(bytes(ack.payload)) == EXAMPLES["ack"]
        (kept,) = await home.observations()
    assert json.loads(kept.payload) == EXAMPLES["event"]
    assert kept.id == f"{EVENT}:{EXAMPLES['ack']['ids'][0]}"


@pytest.mark.parametrize(
    ("answer", "status", "why"), [("applied", "applied", ""), ("applied-error", "failed", "stuck")]
)
async def test_a_command_is_what_it_says_and_ends_as_the_device_answers(
    broker: Broker, tmp_path: Path, answer: str, status: str, why: str
) -> None:
    async with house(broker, tmp_path) as home:
        acting = asyncio.create_task(home.plugin.act(command()))
        heard = await home.hears(VALVE.topic)
        assert json.loads(bytes(heard.payload)) == EXAMPLES["command"]
        assert told(heard) == EXAMPLES["command-properties"]
        assert (heard.qos, bool(heard.retain)) == (1, False)
        assert getattr(heard.properties, "MessageExpiryInterval", 0) > 0
        await home.says(f"{AGENT}/applied", EXAMPLES[answer], EXAMPLES["said-properties"])
        ack = await home.hears(f"{AGENT}/ack/greenhouse")
        assert json.loads(bytes(ack.payload)) == {"ids": [EXAMPLES["said-properties"]["id"]]}
        outcome = await acting
    assert outcome.status == status
    assert why in outcome.reason


async def test_a_state_echo_ends_a_command(broker: Broker, tmp_path: Path) -> None:
    fields = {"confirm": "state", "state_topic": "home/greenhouse/valve", "state_path": "valve"}
    valve = Device(**{name: getattr(VALVE, name) for name in ("name", "scope", "topic", "values", "payload")} | fields)
    async with house(broker, tmp_path, valve) as home:
        acting = asyncio.create_task(home.plugin.act(command()))
        await home.hears(VALVE.topic)
        await home.says(valve.state_topic, EXAMPLES["state"], {})
        assert (await acting).status == "applied"


async def test_the_agent_says_that_it_is_alive_as_written(broker: Broker, tmp_path: Path) -> None:
    async with house(broker, tmp_path) as home:
        heard = await home.hears(f"{AGENT}/alive")
        assert json.loads(bytes(heard.payload)) == EXAMPLES["alive"]
        assert 0 < getattr(heard.properties, "MessageExpiryInterval", 0) <= EXAMPLES["alive"]["for"]


async def test_our_own_device_takes_the_command_as_written(broker: Broker, tmp_path: Path) -> None:
    """In the order of the document: a copy, a smaller fence, a command that came too late."""
    done: list[str] = []

    async def carry_out(heard: Heard) -> None:
        done.append(heard.properties["cmd_id"])

    nobody: Any = None
    properties = EXAMPLES["command-properties"]
    now = [float(properties["not_after"]) - 1]
    valve = Effector(
        nobody, agent="test", memory=tmp_path / "valve.log", carry_out=carry_out, clock=lambda: now[0]
    )  # fmt: skip

    async def gives(**changed: str) -> str:
        return await valve.take(Heard(VALVE.topic, json.dumps(EXAMPLES["command"]).encode(), properties | changed))

    assert [await gives(), await gives()] == ["", ""]
    assert "replaced" in await gives(cmd_id="cm-2", fence="6")
    now[0] += 2
    assert "too late" in await gives(cmd_id="cm-3")
    valve.close()
    assert done == ["cm-1"]


class Line:
    """Stands for the device's connection."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Heard] = asyncio.Queue()
        self.said: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.hear = self.heard.get

    async def send(self, topic: str, value: dict[str, str]) -> None:
        self.said.put_nowait(value)

    async def command(self, identity: str) -> str:
        """What was in the way."""
        properties = EXAMPLES["command-properties"] | {"cmd_id": identity}
        self.heard.put_nowait(Heard(VALVE.topic, json.dumps(EXAMPLES["command"]).encode(), properties))
        async with asyncio.timeout(20):
            return (await self.said.get()).get("error", "")

    def alive(self, changed: dict[str, float] | None = None, *, retained: bool = False) -> None:
        body = json.dumps(EXAMPLES["alive"] | (changed or {})).encode()
        self.heard.put_nowait(Heard(f"{AGENT}/alive", body, {}, retained=retained))


async def test_our_own_device_with_a_lease_obeys_only_an_agent_that_lives(broker: Broker, tmp_path: Path) -> None:
    done, line = list[str](), Line()
    safe: asyncio.Queue[None] = asyncio.Queue()
    actor: Any = line

    async def carry_out(heard: Heard) -> None:
        done.append(heard.properties["cmd_id"])

    async def make_safe() -> None:
        safe.put_nowait(None)

    valve = Effector(
        actor, agent="test", memory=tmp_path / "valve.log", carry_out=carry_out, make_safe=make_safe, clock=lambda: 0.0
    )
    running = asyncio.create_task(valve.run())
    async with asyncio.timeout(20):
        await safe.get()  # from the start
        assert "safe state" in await line.command("cm-1")
        line.alive(retained=True)
        assert "safe state" in await line.command("cm-2")
        line.alive({"fence": 6})
        assert "safe state" in await line.command("cm-3")
        line.alive()
        assert [await line.command("cm-4"), done] == ["", ["cm-4"]]
        assert "safe state" in await line.command("cm-1")  # a copy of what was said to have failed
        line.alive({"for": 0.01})
        await safe.get()
        assert "safe state" in await line.command("cm-5")
        line.alive({"fence": 8})
        await line.command("cm-6")  # it has the smaller fence
        line.alive({"for": 0.01, "fence": 8})
        await safe.get()
        line.alive()  # of the agent that was replaced
        await line.command("cm-7")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    valve.close()
    assert done == ["cm-4"]


def test_every_example_is_used_and_every_topic_of_ours_is_named(broker: Broker) -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in EXAMPLES if f'"{name}"' not in source] == []
    assert WIRE.count("```json") == len(EXAMPLES)
    for topic in ("ack/<producer>", "applied", "alive", "bridge/state"):
        assert f"`corrigible/<agent>/{topic}`" in WIRE
