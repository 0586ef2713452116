"""What arrives over MQTT -> emit, and the acknowledgement to the broker once emit returned, in the order of arrival.

Up to IN_FLIGHT messages are on their way into the journal at once. Where they came from is told twice: the broker gets
its PUBACK, and a producer who put `id` and `producer` into the user properties gets a message on
`corrigible/<agent>/ack/<producer>`; a broker that loses its memory cannot lose what such a producer sends.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiomqtt
import structlog

from plugins import mqtt_feedback
from plugins.mqtt_client import IN_FLIGHT, DurableClient
from plugins.mqtt_device import Device
from plugins.mqtt_outbox import Outbox
from runtime import payload
from runtime.errors import BadInput, CorrigibleError, NotFound
from runtime.marks import numbered
from runtime.messages import Observation, new_id
from runtime.roles import Emit

SOURCE = "mqtt"
PROPERTIES_LIMIT = 16  # user properties that are kept
OFF = (b"off", b"false", b"0")
TEXT_LIMIT = 200  # characters of a property, an id, a producer, a response topic

log = structlog.get_logger("mqtt")


class Inbox:
    """Sorts messages by topic. One object outlives the connections."""

    def __init__(
        self, agent: str, *, sensors: Sequence[str], feedback: Sequence[str], devices: Sequence[Device], emit: Emit, outbox: Outbox,
        confirmed: Callable[[str, bytes], None], applied: Callable[[str, str], Awaitable[None]], kill: Callable[[bool], None],
    ) -> None:  # fmt: skip
        self._own = f"corrigible/{agent}/"
        self._sensors = tuple(sensors)
        self._feedback = (f"{self._own}feedback", *feedback)
        self._states = frozenset(device.state_topic for device in devices if device.state_topic)
        self._commanded = frozenset(device.topic for device in devices)
        self._emit = emit
        self._outbox = outbox
        self._confirmed = confirmed
        self._applied = applied
        self._kill = kill
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def filters(self) -> list[str]:
        """What to subscribe to; a state topic that a sensor filter covers already is not asked for twice."""
        states = [topic for topic in sorted(self._states) if not _matches(topic, self._sensors)]
        return list(
            dict.fromkeys((*self._feedback, f"{self._own}applied", f"{self._own}kill", *self._sensors, *states))
        )

    async def run(self, client: DurableClient) -> None:
        """Read until the connection is lost. Raises what emit raises when the journal cannot take a message."""
        under_way: asyncio.Queue[tuple[aiomqtt.Message, asyncio.Task[None]]] = asyncio.Queue(maxsize=IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._acknowledge(client, under_way), name="mqtt acknowledge")
            async for message in client.messages:
                # not in the group: what is on its way into the journal gets there although the connection is lost
                task = asyncio.create_task(self._take(message), name="mqtt message")
                self._tasks.add(task)
                task.add_done_callback(self._ended)
                await under_way.put((message, task))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """What went wrong is raised where it is acknowledged, if the connection still stands; it comes again either way."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _acknowledge(
        self, client: DurableClient, under_way: asyncio.Queue[tuple[aiomqtt.Message, asyncio.Task[None]]]
    ) -> None:
        while True:
            message, task = await under_way.get()
            await asyncio.shield(task)
            client.ack(message)

    async def _take(self, message: aiomqtt.Message) -> None:
        """Returns once the message is in the journal, in quarantine or nothing to keep."""
        topic, body = str(message.topic), _body(message)
        told = _properties(message)
        if topic == f"{self._own}applied":
            await self._settle(body)
        elif topic == f"{self._own}kill":
            self._switch(body)
        elif _matches(topic, self._feedback) and not topic.endswith("/response"):
            await self._judged(message, topic, body, told)
        elif topic in self._states or (_matches(topic, self._sensors) and not topic.startswith(self._own)):
            if topic in self._states and not message.retain:
                self._confirmed(topic, body)
            await self._sensed(topic, body, told, retained=message.retain)
        else:
            return  # a subscription of an earlier configuration, or our own voice
        identity, producer = told.get("id", ""), told.get("producer", "")
        if identity and producer and not set(producer) & set("+#/\0"):
            self._outbox.acknowledge(f"{self._own}ack/{producer}", identity)

    async def _sensed(self, topic: str, body: bytes, told: dict[str, str], *, retained: bool) -> None:
        identity = f"{topic}:{told['id']}" if told.get("id") else new_id("ob")
        observation = Observation(
            id=identity, topic=topic, payload=body, at=time.time(), source=SOURCE, retained=retained, properties=told
        )
        try:
            await self._emit(observation)
        except (BadInput, NotFound):
            return  # it is in quarantine: the broker need not keep it

    async def _judged(self, message: aiomqtt.Message, topic: str, body: bytes, told: dict[str, str]) -> None:
        identity = f"{topic}:{told['id']}" if told.get("id") else ""
        at = time.time()
        answer: dict[str, Any] = {"status": "ok"}
        try:
            feedback = mqtt_feedback.read(body, identity=identity, source=SOURCE, at=at)
        except BadInput as error:
            answer = {"status": "error", "error": str(error)}
            await self._keep(topic, body, str(error), identity, at)
        else:
            answer = {"status": "ok", "id": feedback.id, "decision": feedback.decision_id}
            try:
                await self._emit(feedback)
            except (BadInput, NotFound) as error:
                answer |= {"status": "error", "error": str(error)}
        self._respond(message, topic, answer)

    async def _keep(self, topic: str, body: bytes, reason: str, identity: str, at: float) -> None:
        """Put a feedback that is none into quarantine, by handing the runtime what it will refuse."""
        try:
            payload.parse_scalar(body)
        except BadInput:
            await self._sensed(topic, body, {}, retained=False)
            return
        try:
            await self._emit(mqtt_feedback.unreadable(body, reason, identity=identity, source=SOURCE, at=at))
        except CorrigibleError as error:
            log.debug("feedback refused", reason=str(error))

    def _respond(self, message: aiomqtt.Message, topic: str, answer: dict[str, Any]) -> None:
        """To the MQTT 5 response topic, else beside the feedback topic; never to where a device listens."""
        asked = str(getattr(message.properties, "ResponseTopic", "") or "")
        correlation = getattr(message.properties, "CorrelationData", None)
        if (
            not asked
            or len(asked) > TEXT_LIMIT
            or set(asked) & set("+#")
            or asked in self._commanded
            or _matches(asked, self._feedback)
        ):
            asked = f"{topic}/response"
        self._outbox.put(asked, answer, correlation if isinstance(correlation, bytes) else None)

    async def _settle(self, body: bytes) -> None:
        """A device says `{"cmd_id": …}` for done, with `"error"` for not."""
        try:
            value = payload.parse(body)
        except BadInput:
            return
        if isinstance(value, dict) and isinstance(value.get("cmd_id"), str):
            await self._applied(value["cmd_id"], str(value.get("error") or ""))

    def _switch(self, body: bytes) -> None:
        """The kill switch: only a clear `off` takes it off; an empty message is how a retained one is deleted."""
        if not body:
            return
        on = body.strip(b'" \n').lower() not in OFF
        log.warning("kill switch by MQTT", on=on)
        try:
            self._kill(on)
        except OSError as error:  # it is on all the same, or stays so
            log.error("the kill switch's file cannot be changed", on=on, error=str(error))


def _matches(topic: str, filters: Sequence[str]) -> bool:
    return any(aiomqtt.Topic(topic).matches(pattern) for pattern in filters)


def _body(message: aiomqtt.Message) -> bytes:
    return message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()


def _properties(message: aiomqtt.Message) -> dict[str, str]:
    """The user properties, as many as are sensible; an id or a name that is too long stands by its hash."""
    pairs = getattr(message.properties, "UserProperty", None) or ()
    told = {str(key)[:TEXT_LIMIT]: _short(str(value)) for key, value in pairs[:PROPERTIES_LIMIT]}
    if "id" not in told and (place := numbered(told)) is not None:
        told["id"] = "/".join(map(str, place))
    return told


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else hashlib.sha256(text.encode()).hexdigest()
