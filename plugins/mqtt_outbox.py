"""What the MQTT plugin has to say besides commands (decisions, responses, acknowledgements), kept over lost connections."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator
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
WAITING, WAITING_OF_ALL = 1024, 20_000  # ids to be acknowledged, of one producer and of all; the others are sent again
IDS, IDS_SIZE = 256, 16_384  # ids in one letter and the bytes of them: brokers cut the connection at what is too large
FRAME = 64  # bytes of a packet beyond topic, body and correlation, at most
log = structlog.get_logger("plugins.mqtt")


@dataclass(frozen=True)
class Letter:
    topic: str
    body: bytes
    correlation: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes of its packet, rather too many."""
        return len(self.topic.encode()) + len(self.body) + len(self.correlation or b"") + FRAME


class Outbox:
    """A queue with one publisher. A letter leaves it once the broker has it, so it may be sent twice but is not lost."""

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()
        self._ids: dict[str, dict[str, None]] = {}  # acknowledgement topic -> ids to be told together
        self._waiting = 0  # ids of all topics
        self._some = asyncio.Event()

    def put(self, topic: str, value: object, correlation: bytes | None = None) -> None:
        if len(self._letters) == LIMIT:
            dropped = self._letters.popleft()
            log.warning("too much to say while offline, the oldest is dropped", topic=dropped.topic)
        self._letters.append(Letter(topic, msgspec.json.encode(value), correlation))
        self._some.set()

    def acknowledge(self, topic: str, identity: str) -> None:
        """Tell a producer that a message of theirs is in the journal; what comes together is told together."""
        ids = self._ids.get(topic, {})
        if identity in ids or len(ids) == WAITING or self._waiting == WAITING_OF_ALL:
            return
        if topic not in self._ids and len(self._ids) == PRODUCERS:
            return
        self._ids.setdefault(topic, ids)[identity] = None
        self._waiting += 1
        self._some.set()

    async def run(self, client: DurableClient) -> None:
        while True:
            self._some.clear()
            for topic in tuple(self._ids):
                ids = self._ids.pop(topic)
                self._waiting -= len(ids)
                for some in _bunches(ids):
                    self.put(topic, {"ids": some})
            while self._letters:
                letter = self._letters[0]
                await self._send(client, letter)
                if self._letters and self._letters[0] is letter:  # it may have been dropped meanwhile
                    self._letters.popleft()
            await self._some.wait()

    async def _send(self, client: DurableClient, letter: Letter) -> None:
        limit = getattr(client.greeting, "MaximumPacketSize", None)
        if limit is not None and letter.size > limit:  # the broker would cut the connection, again and again
            log.warning("not published, it is too large for the broker", topic=letter.topic, limit=limit)
            return
        properties = Properties(PacketTypes.PUBLISH)
        if letter.correlation is not None:
            properties.CorrelationData = letter.correlation
        try:
            await client.publish(letter.topic, letter.body, qos=1, properties=properties)
        except (Refused, ValueError) as error:  # sending it again would not help
            log.warning("not published", topic=letter.topic, error=str(error))


def _bunches(ids: Iterable[str]) -> Iterator[list[str]]:
    """As many as fit into one letter."""
    some, size = list[str](), 0
    for identity in ids:
        more = len(msgspec.json.encode(identity)) + 1
        if some and (len(some) == IDS or size + more > IDS_SIZE):
            yield some
            some, size = [], 0
        some.append(identity)
        size += more
    if some:
        yield some


def spelled(action: Action, single: Collection[str]) -> str:
    """The action's text. `single` are the tools known to have one argument; others are written as JSON."""
    values: list[Any] = list(action.arguments.values())
    if not values:
        return action.tool
    if len(values) == 1 and (action.tool in single or action.tool == "reply"):
        return f"{action.tool} {values[0] if isinstance(values[0], str) else msgspec.json.encode(values[0]).decode()}"
    return f"{action.tool} {encode_arguments(action.arguments)}"
