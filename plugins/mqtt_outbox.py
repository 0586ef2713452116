"""What the MQTT plugin has to say besides commands (decisions, responses, acknowledgements), kept over lost connections."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from plugins.mqtt_client import DurableClient, Refused
from runtime.messages import Action, encode_arguments

LIMIT = 10_000  # messages that wait for a connection; beyond it the oldest is dropped
PRODUCERS = 1000  # that can be waiting for an acknowledgement at once
log = structlog.get_logger("plugins.mqtt")


@dataclass(frozen=True)
class Letter:
    topic: str
    body: bytes
    correlation: bytes | None = None


class Outbox:
    """A queue with one publisher. A letter leaves it once the broker has it, so it may be sent twice but is not lost."""

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self._ids: dict[str, list[str]] = {}  # acknowledgement topic -> ids to be told in one message
        self._some = asyncio.Event()

    def put(self, topic: str, value: object, correlation: bytes | None = None) -> None:
        if len(self._letters) == LIMIT:
            dropped = self._letters.popleft()
            log.warning("too much to say while offline, the oldest is dropped", topic=dropped.topic)
        self._letters.append(Letter(topic, msgspec.json.encode(value), correlation))
        self._some.set()

    def acknowledge(self, topic: str, identity: str) -> None:
        """Tell a producer that a message of theirs is in the journal; what comes together is told together."""
        if topic in self._ids or len(self._ids) < PRODUCERS:  # the others send again
            self._ids.setdefault(topic, []).append(identity)
        self._some.set()

    async def run(self, client: DurableClient) -> None:
        while True:
            self._some.clear()
            for topic in tuple(self._ids):
                self.put(topic, {"ids": self._ids.pop(topic)})
            while self._letters:
                letter = self._letters[0]
                await self._send(client, letter)
                if self._letters and self._letters[0] is letter:  # it may have been dropped meanwhile
                    self._letters.popleft()
            await self._some.wait()

    async def _send(self, client: DurableClient, letter: Letter) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if letter.correlation is not None:
            properties.CorrelationData = letter.correlation
        try:
            await client.publish(letter.topic, letter.body, qos=1, properties=properties)
        except (Refused, ValueError) as error:  # sending it again would not help
            log.warning("not published", topic=letter.topic, error=str(error))


def spelled(action: Action, single: Collection[str]) -> str:
    """The action's text. `single` are the tools known to have one argument; others are written as JSON."""
    values: list[Any] = list(action.arguments.values())
    if not values:
        return action.tool
    if len(values) == 1 and (action.tool in single or action.tool == "reply"):
        return f"{action.tool} {values[0] if isinstance(values[0], str) else msgspec.json.encode(values[0]).decode()}"
    return f"{action.tool} {encode_arguments(action.arguments)}"
