"""The other side of the broker: a device or person that publishes until the agent has acknowledged, and hears it speak.

A message carries the user properties `producer` and `id`; the agent answers with the ids it has committed on
`corrigible/<agent>/ack/<producer>`. Until then a message is sent again, over lost connections, a restarted broker and a
restarted agent. A copy that arrives twice is dropped by the agent, because the id is the same.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiomqtt
import msgspec
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from plugins.mqtt_client import Client
from runtime.messages import new_id

RESEND = 2.0  # seconds without an acknowledgement after which a message is sent again
DOUBT = 30  # attempts after which that is said
PENDING = 64  # publishes under way from which aiomqtt says so
SESSION = 3600  # seconds the broker keeps our subscriptions while we are away
BACKOFF = (0.1, 3.0)  # seconds between two attempts to connect, first and longest

log = structlog.get_logger("actor")


@dataclass(frozen=True)
class Heard:
    """A message that reached us."""

    topic: str
    payload: bytes
    properties: dict[str, str]
    retained: bool = False  # the broker has kept it from before
    at: float = field(default_factory=time.monotonic)


class Actor:
    """One producer. `connected` runs it; `send` returns when the agent has the message."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        producer: str,
        agent: str,
        topics: tuple[str, ...],
        username: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._login = (username or None, password or None)
        self._tls = tls
        self._producer = producer
        self._acks = f"corrigible/{agent}/ack/{producer}"
        self._topics = (*topics, self._acks)
        self._client: Client | None = None
        self._online = asyncio.Event()
        self._unacknowledged: dict[str, asyncio.Event] = {}
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()
        self.resent = 0

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Actor]:
        """Connect and stay connected for the length of the block."""
        async with self.running():
            await self._online.wait()
            yield self

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Actor]:
        """The same, without waiting for the first connection."""
        keeper = asyncio.create_task(self._keep(), name=f"actor {self._producer}")
        try:
            yield self
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    async def hear(self) -> Heard:
        return await self._heard.get()

    async def send(self, topic: str, value: object, *, id: str = "") -> str:
        """Publish until the agent acknowledges; returns the message's id."""
        identity = id or new_id("m")
        told = {"producer": self._producer, "id": identity}
        await self.deliver(topic, msgspec.json.encode(value), identity, told)
        return identity

    async def deliver(
        self, topic: str, payload: bytes, identity: str, told: Mapping[str, str], *, before: int = 0, turn: int | None = None,
    ) -> bool:  # fmt: skip
        """Publish with these user properties until the agent acknowledges `identity`: whether it did, in so many attempts (`turn`;
        None: for ever). `before`: attempts that were made already. Raises ValueError if it can never be sent."""
        acknowledged = self._unacknowledged[identity] = asyncio.Event()
        try:
            for attempt in itertools.count(before) if turn is None else range(before, before + turn):
                await self._online.wait()
                self.resent += bool(attempt)
                await self._publish(topic, payload, told)
                if attempt == DOUBT:
                    log.warning("not acknowledged yet: is the agent running, and subscribed to it?", topic=topic)
                with suppress(TimeoutError):
                    async with asyncio.timeout(RESEND):
                        await acknowledged.wait()
                        return True
            return False
        finally:
            del self._unacknowledged[identity]

    async def _publish(self, topic: str, payload: bytes, told: Mapping[str, str]) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = list(told.items())
        client = self._client
        if client is not None:
            with suppress(aiomqtt.MqttError):  # it is sent again
                await client.publish(topic, payload, qos=1, properties=properties, timeout=RESEND)

    async def _keep(self) -> None:
        """One connection after another, each with a client of its own."""
        wait = BACKOFF[0]
        while True:
            with suppress(aiomqtt.MqttError):
                async with self._connection() as client:
                    for topic in self._topics:
                        await client.subscribe(topic, qos=1)
                    self._client, wait = client, BACKOFF[0]
                    self._online.set()
                    async for message in client.messages:
                        self._take(message)
            self._client = None
            self._online.clear()
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, BACKOFF[1])

    def _connection(self) -> Client:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = SESSION
        client = Client(
            self._host, self._port, username=self._login[0], password=self._login[1], identifier=self._producer,
            protocol=aiomqtt.ProtocolVersion.V5, clean_start=False, properties=session, timeout=RESEND,
            tls_context=self._tls,
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],  # else Nagle adds 40 ms a message
        )  # fmt: skip
        client.pending_calls_threshold = PENDING
        return client

    def _take(self, message: aiomqtt.Message) -> None:
        topic, payload = str(message.topic), message.payload
        body = payload if isinstance(payload, bytes) else str(payload).encode()
        if topic == self._acks:
            for identity in _ids(body):
                if identity in self._unacknowledged:
                    self._unacknowledged[identity].set()
            return
        pairs = getattr(message.properties, "UserProperty", ()) or ()
        told = {str(key): str(value) for key, value in pairs}
        self._heard.put_nowait(Heard(topic, body, told, retained=message.retain))


def _ids(payload: bytes) -> list[str]:
    try:
        return msgspec.json.decode(payload, type=dict[str, list[str]]).get("ids", [])
    except msgspec.MsgspecError:
        return []
