"""What arrives on one connection -> `take`, and the acknowledgement to the broker once that returned, in the order of arrival.

Up to IN_FLIGHT messages are on their way into the journal at once; the broker keeps the rest. What may be lost (`spare` names
it) has places of its own, and beyond those it is let go, and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import aiomqtt

from plugins.mqtt_client import IN_FLIGHT, DurableClient
from plugins.mqtt_message import Received, read
from plugins.mqtt_redelivered import Redelivered
from runtime.errors import Unavailable

SPARE = 1024  # messages that may be lost and wait: a burst of a house full of sensors is no overload
AT_ONCE = 16  # of them on their way into the journal: a commit of many rows is a commit that others wait for


class Inbox:
    """One object outlives the connections. `take` returns once the message is in the journal, in quarantine or nothing to keep;
    `spare` names the class of a message at QoS 0 that may be lost, empty for all others; `shed` counts one that was; `seen`
    knows what the broker sends once more."""

    def __init__(
        self,
        take: Callable[[Received], Coroutine[Any, Any, None]],
        spare: Callable[[Received], str] = lambda message: "",
        shed: Callable[[str], object] | None = None,
        seen: Redelivered | None = None,
    ) -> None:
        self._take = take
        self._spare = spare
        self._shed = shed
        self._seen = seen or Redelivered()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spares = 0  # that wait or are on their way
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def run(self, client: DurableClient) -> None:
        """Read until the connection is lost. Raises what `take` raises when the journal cannot have a message."""
        if not client.session_present:
            self._seen.new_session()
        under_way: asyncio.Queue[tuple[aiomqtt.Message, asyncio.Task[None]]] = asyncio.Queue(maxsize=IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._acknowledge(client, under_way), name="mqtt acknowledge")
            async for message in client.received():
                received = self._named(client, message)
                name = self._spare(received) if self._shed is not None else ""
                if name:  # it needs no acknowledgement, and holds nobody up
                    self._begin_spare(received, name)
                else:
                    await under_way.put((message, self._begin(self._take(received))))

    def _named(self, client: DurableClient, message: aiomqtt.Message) -> Received:
        received = read(message)
        if received.qos != 1:
            return received
        return replace(
            received, name=self._seen.name(received.topic, received.body, message.mid, client.again(message))
        )

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Not in the group: what is on its way into the journal gets there although the connection is lost."""
        task = asyncio.create_task(work, name="mqtt message")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _begin_spare(self, message: Received, name: str) -> None:
        assert self._shed is not None
        if self._spares >= SPARE:
            self._shed(name)
            return
        self._spares += 1
        self._begin(self._take_spare(message, name, self._shed))

    async def _take_spare(self, message: Received, name: str, shed: Callable[[str], object]) -> None:
        try:
            async with self._turns:
                await self._take(message)
        except Unavailable:  # nobody will send it again
            shed(name)
        finally:
            self._spares -= 1

    def _ended(self, task: asyncio.Task[None]) -> None:
        """What went wrong is raised where it is acknowledged, if the connection still stands; it comes again either way."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _acknowledge(
        self, client: DurableClient, under_way: asyncio.Queue[tuple[aiomqtt.Message, asyncio.Task[None]]]
    ) -> None:
        while True:
            message, ended = await under_way.get()
            await asyncio.shield(ended)
            client.ack(message)
