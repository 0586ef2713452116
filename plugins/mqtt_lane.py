"""A lane is one MQTT session: one connection after another, each with a client of its own, until cancelled.

The plugin has up to three: what people and devices have to say about commands never waits behind a crowd of sensors, and what
may not be lost never behind what may.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import aiomqtt
import structlog

from plugins.mqtt_client import DurableClient
from plugins.mqtt_sessions import CALM
from runtime.errors import Unavailable, first

STEADY = 2.0  # seconds that a connection stands before the next loss is taken for the first of a row
BACKOFF = (0.2, 15.0)  # seconds between two attempts to connect, first and longest

log = structlog.get_logger("plugins.mqtt")


class Lane:
    """`connect` makes a client, which is subscribed to `filters`; `serve` uses it for as long as the connection stands. `greeted` is
    told of every connection; `rival` says whether another client with our id is why it was lost, once too often."""

    def __init__(
        self, name: str, connect: Callable[[], DurableClient], filters: Sequence[str], qos: int,
        serve: Callable[[DurableClient], Awaitable[None]], *,
        greeted: Callable[[DurableClient], object] = lambda client: None,
        rival: Callable[[BaseException], bool] = lambda error: False,
    ) -> None:  # fmt: skip
        self.name = name
        self.connected = False
        self._connect = connect
        self._filters = tuple(filters)
        self._qos = qos
        self._serve = serve
        self._greeted, self._rival = greeted, rival

    async def run(self) -> None:
        wait = BACKOFF[0]
        while True:
            try:
                async with self._connect() as client:
                    since = time.monotonic()
                    try:
                        await self._use(client)
                    finally:
                        wait = BACKOFF[0] if time.monotonic() - since >= STEADY else wait
            except* (aiomqtt.MqttError, Unavailable) as errors:  # the broker keeps what the journal could not take
                wait = CALM if self._rival(first(errors)) else wait
                log.warning("connection lost", lane=self.name, error=str(first(errors)), seconds=round(wait, 1))
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, BACKOFF[1])

    async def _use(self, client: DurableClient) -> None:
        """A session that was taken up again is served while it is subscribed to anew: a broker that waits for our
        acknowledgements may say nothing else before them (rumqttd)."""
        async with asyncio.TaskGroup() as group:
            if client.session_present:
                group.create_task(self._serve_on(client), name=f"mqtt {self.name}")
            await client.subscribe_all(self._filters, self._qos)
            log.info("connected", lane=self.name, session=client.session_present)
            self._greeted(client)
            self.connected = True
            if not client.session_present:
                group.create_task(self._serve_on(client), name=f"mqtt {self.name}")

    async def _serve_on(self, client: DurableClient) -> None:
        try:
            await self._serve(client)
        finally:
            self.connected = False
