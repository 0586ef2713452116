"""MQTT at both ends of the loop: sensor topics -> Observation, feedback topics -> Feedback, Command -> actuator topics.

What is covered: a message is acknowledged to the broker only after the journal has it, in the order of arrival; what people
say, the kill switch and a device's `applied` have a session of their own, which no crowd of sensors holds up; a command is
sent again until the device confirms it or it is too old; connections come back by themselves. What is not: a message without
an `id` property that the broker delivers twice counts twice (give it one, and a `producer` who is told).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import aiomqtt
import msgspec
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from plugins.mqtt_client import DurableClient
from plugins.mqtt_control import Control
from plugins.mqtt_decisions import Decisions
from plugins.mqtt_device import Device
from plugins.mqtt_inbox import Inbox
from plugins.mqtt_lane import Lane
from plugins.mqtt_look import look
from plugins.mqtt_outbox import Outbox
from plugins.mqtt_outcome import outcome, stopped
from plugins.mqtt_redelivered import Redelivered
from plugins.mqtt_sensors import Sensors, check_filter
from plugins.mqtt_sessions import Rival, Sessions
from runtime.catalogue import Tool
from runtime.deadline import Left, until
from runtime.errors import BadConfig, NotFound, Unavailable
from runtime.messages import Command, Decision, Feedback, Observation, Outcome, Percept
from runtime.roles import Actuator, Critic, Emit, Sensor

RESEND = 2.0  # seconds without a confirmation after which a command is sent again

log = structlog.get_logger("plugins.mqtt")


@dataclass
class Waiting:
    """A command under way and the device's word on it."""

    device: Device
    value: object
    done: asyncio.Future[str]  # empty: applied; else what went wrong
    sent: bool = False


@dataclass
class Mqtt(Sensor, Actuator, Critic):
    """[[plugin]]
    use = "plugins.mqtt:Mqtt"
    sensors = ["home/+/+"]
    [[plugin.actuators]]
    name = "living_room_lamp"
    scope = "living_room"
    topic = "home/living_room/lamp/set"
    values = ["off", "dim", "bright"]
    state_topic = "home/living_room/lamp"
    """

    sensors: list[str] = field(default_factory=list)  # topic filters
    actuators: list[Device] = field(default_factory=list)
    telemetry: list[str] = field(default_factory=list)  # sensors, too; their messages may be shed when too many come
    feedback: list[str] = field(default_factory=list)  # topic filters besides corrigible/<agent>/feedback
    lease: float = 0.0  # seconds for which corrigible/<agent>/alive keeps devices from their safe state; 0 = never said

    def __post_init__(self) -> None:
        self._devices: dict[str, Device] = {}
        for device in self.actuators:
            device.check()
            if device.name in self._devices:
                raise BadConfig(f"two actuators are called {device.name!r}; every name is used once")
            self._devices[device.name] = device
        for topic in (*self.sensors, *self.telemetry, *self.feedback):
            check_filter(topic)
        self._waiting: dict[str, Waiting] = {}
        self._client: DurableClient | None = None
        self._online = asyncio.Event()
        self._lanes: tuple[Lane, ...] = ()
        self._outbox = Outbox()
        self._decisions = Decisions(self._outbox, self._devices)

    @property
    def connected(self) -> bool:
        return bool(self._lanes) and all(lane.connected for lane in self._lanes)

    # --- Sensor

    async def sense(self, emit: Emit) -> None:
        """All lanes, until cancelled."""
        if self.context.broker.mode == "none":
            raise Unavailable("the MQTT plugin needs a broker, but [broker] mode is 'none'")
        self._sessions = Sessions(self.context.data, self.context.broker, self.context.notice)
        self._lanes = tuple(self._made(emit))
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.run(), name=f"mqtt {lane.name}")
            group.create_task(self._look(), name="mqtt broker check")

    async def _look(self) -> None:
        """Once, at the first connection."""
        while (client := self._client) is None:
            await self._online.wait()
        context = self.context
        await look(client, context.broker, f"{self._identifier}-look", context.data, context.notice)

    def _made(self, emit: Emit) -> Iterator[Lane]:
        """One lane for control and for what we say, one for the sensors, one for telemetry."""
        devices = tuple(self._devices.values())
        control = Control(
            self.context.agent, feedback=self.feedback, devices=devices, emit=emit, outbox=self._outbox,
            applied=self._applied, kill=self.context.kill,
        )  # fmt: skip
        will = aiomqtt.Will(self._state, b"offline", qos=1, retain=True)
        said = Inbox(control.take, seen=self._seen("-control"))
        yield self._lane("control", "-control", control.filters, 1, partial(self._steer, said), will)
        hear = partial(Sensors, self.context.agent, emit=emit, outbox=self._outbox, confirmed=self._confirmed)
        states = [device.state_topic for device in devices if device.state_topic]
        sensors = hear(self.sensors, others=(*control.feedback, *self.telemetry), devices=devices)
        telemetry = hear(self.telemetry, others=(*control.feedback, *states), declared=True)
        for name, of, qos, suffix in (("sensors", sensors, 1, ""), ("telemetry", telemetry, 0, "-telemetry")):
            if of.filters:
                inbox = Inbox(of.take, of.spare, self.context.shed, self._seen(suffix))
                yield self._lane(name, suffix, of.filters, qos, inbox.run)

    def _lane(
        self, name: str, suffix: str, filters: Sequence[str], qos: int, serve: Callable[[DurableClient], Awaitable[None]],
        will: aiomqtt.Will | None = None,
    ) -> Lane:  # fmt: skip
        identifier = f"{self._identifier}{suffix}"
        rival = Rival(self.context.notice)
        return Lane(
            name, lambda: DurableClient(self.context.broker, identifier=identifier, will=will), filters, qos, serve,
            greeted=partial(self._greeted, identifier, qos), rival=partial(rival.met, identifier),
        )  # fmt: skip

    def _greeted(self, identifier: str, qos: int, client: DurableClient) -> None:
        """At QoS 0 there is nothing in a session that could be lost."""
        if qos:
            self._sessions.greeted(identifier, client.session_present)

    def _seen(self, suffix: str) -> Redelivered:
        return Redelivered(self.context.data / f"mqtt-seen-{self.name}{suffix}")

    @property
    def _identifier(self) -> str:
        return f"corrigible-{self.context.agent}-{self.name}"

    @property
    def _state(self) -> str:
        return f"corrigible/{self.context.agent}/bridge/state"

    async def _steer(self, inbox: Inbox, client: DurableClient) -> None:
        await client.publish(self._state, b"online", qos=1, retain=True)
        await self._say_alive(client)  # before any command: a device that has not heard it refuses them
        self._client = client
        self._online.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outbox.run(client), name="mqtt outbox")
                group.create_task(inbox.run(client), name="mqtt inbox")
                if self.lease:
                    group.create_task(self._stay(client), name="mqtt lease")
        except asyncio.CancelledError:
            with suppress(aiomqtt.MqttError):
                await client.publish(self._state, b"offline", qos=1, retain=True, timeout=1.0)
            raise
        finally:
            self._client = None
            self._online.clear()

    async def _stay(self, client: DurableClient) -> None:
        """Devices that hear nothing for `lease` seconds go to their safe state by themselves."""
        while True:
            await asyncio.sleep(self.lease / 3)
            await self._say_alive(client)

    async def _say_alive(self, client: DurableClient) -> None:
        if self.lease and self.context.armed():
            body = msgspec.json.encode({"for": self.lease, "fence": self.context.fence})
            properties = Properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = math.ceil(self.lease)  # some brokers keep QoS 0, too, for who is away
            await client.publish(f"corrigible/{self.context.agent}/alive", body, qos=0, properties=properties)

    # --- Actuator

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        scopes: dict[str, tuple[Tool, ...]] = {}
        for device in self.actuators:
            scopes[device.scope] = (*scopes.get(device.scope, ()), device.tool())
        return scopes

    async def act(self, command: Command) -> Outcome:
        """Publish the set-point until the device confirms it or the command is too old."""
        device = self._devices.get(command.actuator)
        if device is None:
            raise NotFound(f"no MQTT actuator is called {command.actuator!r}")
        value = command.action.arguments[device.argument]
        waiting = Waiting(device, value, asyncio.get_running_loop().create_future())
        self._waiting[command.id] = waiting
        try:
            return await (self._once if device.once else self._until_done)(command, waiting)
        finally:
            del self._waiting[command.id]

    async def _once(self, command: Command, waiting: Waiting) -> Outcome:
        """At QoS 0, which neither client nor broker repeats: one publish, or none."""
        left = until(command.at, command.expires_at)
        try:
            async with asyncio.timeout(left()):
                await self._online.wait()
        except TimeoutError:
            return outcome(command, "expired", "there is no connection to the broker")
        if (no := self.context.permits(command)) is not None:
            return outcome(command, "refused", no)
        if why := await self._publish(command, waiting, left, qos=0):
            return outcome(command, "uncertain", f"it may have been told: {why}")
        if waiting.device.confirmation == "none":
            return outcome(command, "sent", "told once; the device does not confirm")
        await asyncio.wait((waiting.done,), timeout=max(0.0, left()))
        if not waiting.done.done():
            return outcome(command, "uncertain", f"told once, and {waiting.device.name} did not confirm it")
        problem = waiting.done.result()
        return outcome(command, "failed" if problem else "applied", problem or "the device confirmed it")

    async def _until_done(self, command: Command, waiting: Waiting) -> Outcome:
        device, time_left, why = (
            waiting.device,
            until(command.at, command.expires_at),
            "there is no connection to the broker",
        )
        while (left := time_left()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._online.wait()
                    if (no := self.context.permits(command)) is not None:
                        return outcome(command, *stopped(waiting.sent, no))
                    why = await self._publish(command, waiting, time_left)
                    if not why and device.confirmation == "none":
                        return outcome(command, "sent", "the broker has it; the device does not confirm")
                    await asyncio.wait((waiting.done,), timeout=RESEND)
            if waiting.done.done():
                problem = waiting.done.result()
                return outcome(command, "failed" if problem else "applied", problem or "the device confirmed it")
        return outcome(command, "expired", why or f"{device.name} did not confirm it in time")

    async def _publish(self, command: Command, waiting: Waiting, time_left: Left, qos: int = 1) -> str:
        """Send the command once; what was in the way, empty if nothing. It is never retained: it is for now only. Broker and
        device are told what is left by either clock: `expires_at` may have been written by a clock that was ahead."""
        client, left = self._client, time_left()
        if client is None:
            return "there is no connection to the broker"
        properties = Properties(PacketTypes.PUBLISH)
        properties.MessageExpiryInterval = max(1, math.ceil(left))
        properties.UserProperty = [
            ("cmd_id", command.id), ("not_after", f"{time.time() + left:.3f}"), ("fence", str(self.context.fence)),
        ]  # fmt: skip
        waiting.sent = True
        try:
            await client.publish(
                waiting.device.topic,
                waiting.device.message(waiting.value),
                qos=qos,
                properties=properties,
                timeout=RESEND,
            )
        except aiomqtt.MqttError as error:
            return str(error)
        return ""

    def _confirmed(self, topic: str, body: bytes) -> None:
        """A device said how it is: commands that wait for just that are done."""
        for waiting in self._waiting.values():
            device = waiting.device
            if not waiting.sent or waiting.done.done() or device.confirmation != "state" or device.state_topic != topic:
                continue
            if device.shows(body, waiting.value):
                waiting.done.set_result("")

    async def _applied(self, command_id: str, problem: str) -> None:
        """A device named the command it carried out, or could not."""
        waiting = self._waiting.get(command_id)
        if waiting is None:
            await self.context.settled(command_id, problem)
        elif not waiting.done.done() and waiting.device.confirmation == "ack":
            waiting.done.set_result(problem)

    # --- Critic: has no opinion, but hears every decision, and publishes it

    def criticise(self, message: Observation | Percept | Decision | Command | Outcome) -> Iterable[Feedback]:
        if isinstance(message, Percept):
            self._decisions.hear(message)
        if isinstance(message, Decision):
            self._decisions.announce(self.context.agent, message)
        return ()
