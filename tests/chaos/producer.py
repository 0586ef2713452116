"""A device that loses nothing: it writes a message down, sends it until the agent itself has acknowledged it, then forgets it.

The wire format is today's: user properties `producer` and `id`, acknowledged as `{"ids": [...]}`. `properties` and
`acknowledged` are the only places that know it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import aiomqtt
import msgspec

from tests.chaos.history import Acked, History, Sent
from tests.chaos.link import Link, body

RESEND = 2.0  # seconds without an acknowledgement after which a message is sent again


class Producer:
    def __init__(self, port: int, agent: str, name: str, history: History, on_ack: Callable[[], None]) -> None:
        self.name = name
        self.resent = 0
        self._history, self._on_ack = history, on_ack
        self._open: dict[str, asyncio.Event] = {}
        self.link = Link(port, name, (f"corrigible/{agent}/ack/{name}",), self._heard)

    async def send(self, message: Sent) -> None:
        """Returns when the agent has it."""
        self._history.append(message)
        acknowledged = self._open[message.id] = asyncio.Event()
        while True:
            await self.link.online.wait()
            await self.link.publish(message.topic, message.payload, properties(message))
            with suppress(TimeoutError):
                async with asyncio.timeout(RESEND):
                    await acknowledged.wait()
            if acknowledged.is_set():
                return
            self.resent += 1

    def _heard(self, message: aiomqtt.Message) -> None:
        for id in acknowledged(body(message)):
            waiting = self._open.pop(id, None)
            if waiting is not None:
                self._history.append(Acked(id=id, producer=self.name, at=time.time()))
                waiting.set()
                self._on_ack()


def properties(message: Sent) -> dict[str, str]:
    return {"producer": message.producer, "id": message.id}


def acknowledged(payload: bytes) -> list[str]:
    """The ids an acknowledgement names."""
    try:
        return msgspec.json.decode(payload, type=dict[str, list[str]]).get("ids", [])
    except msgspec.MsgspecError:
        return []
