"""A client of the broker that stays connected: producers and actuators stand on it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

SESSION = 3600  # seconds the broker keeps our subscriptions
PATIENCE = 2.0  # seconds for the broker to answer
WAIT = 0.1  # seconds between two attempts to connect


class Link:
    """`heard` is told every message. What is published while there is no connection is lost: whoever cares says it again."""

    def __init__(self, port: int, name: str, topics: tuple[str, ...], heard: Callable[[aiomqtt.Message], None]) -> None:
        self._port, self._name, self._topics, self._heard = port, name, topics, heard
        self._client: aiomqtt.Client | None = None
        self.online = asyncio.Event()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Link]:
        keeper = asyncio.create_task(self._keep(), name=f"chaos {self._name}")
        try:
            await self.online.wait()
            yield self
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    async def publish(
        self, topic: str, payload: bytes, told: dict[str, str] | None = None, *, retain: bool = False
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if told:
            properties.UserProperty = list(told.items())
        if self._client is not None:
            with suppress(aiomqtt.MqttError):
                await self._client.publish(
                    topic, payload, qos=1, retain=retain, properties=properties, timeout=PATIENCE
                )

    async def _keep(self) -> None:
        while True:
            with suppress(aiomqtt.MqttError):
                async with self._connection() as client:
                    for topic in self._topics:
                        await client.subscribe(topic, qos=1)
                    self._client = client
                    self.online.set()
                    async for message in client.messages:
                        self._heard(message)
            self._client = None
            self.online.clear()
            await asyncio.sleep(WAIT * random.uniform(0.5, 1.5))

    def _connection(self) -> aiomqtt.Client:
        session = Properties(PacketTypes.CONNECT)
        session.SessionExpiryInterval = SESSION
        client = aiomqtt.Client(
            "127.0.0.1", self._port, identifier=self._name, protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False, properties=session, timeout=PATIENCE,
        )  # fmt: skip
        client.pending_calls_threshold = 1000  # a window of messages is under way on purpose
        return client


def body(message: aiomqtt.Message) -> bytes:
    return message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()


def told(message: aiomqtt.Message) -> dict[str, str]:
    """The user properties."""
    return dict(getattr(message.properties, "UserProperty", None) or ())
