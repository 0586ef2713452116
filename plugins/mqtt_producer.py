"""A producer that loses nothing: what `post` returned from reaches the agent, whatever is killed meanwhile, and counts once.

    async with Producer("192.0.2.10", 1883, name="greenhouse", agent="corrigible", store=Path("greenhouse.db")) as producer:
        await producer.post("home/greenhouse/temperature", 21.5)

A message goes into the file, then to the broker, again and again until the agent itself says that its journal has it, and only
then out of the file. Broker and agent need not be there when it is posted.
"""

from __future__ import annotations

import asyncio
import ssl
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self, TypeVar

import msgspec
import structlog

from plugins.mqtt_actor import Actor
from plugins.mqtt_store import LIMIT, Kept, Store
from plugins.mqtt_turns import Turns
from runtime.errors import BadConfig, BadInput

AT_ONCE = 32  # messages under way at once; the others wait in the file
NAME_LIMIT = 64  # characters
PAYLOAD_LIMIT = 65_536  # bytes; the agent puts longer ones into quarantine

TOPIC_LIMIT = 65_535  # bytes of UTF-8, by the protocol
TURN = 3  # attempts without an acknowledgement after which others are sent first

T = TypeVar("T")
log = structlog.get_logger("producer")


class Producer:
    """One sender with a name of its own, which is its MQTT client id, too. `limit`: messages that may wait in the file."""

    def __init__(
        self, host: str, port: int, *, name: str, agent: str, store: Path, username: str = "", password: str = "",
        tls: ssl.SSLContext | None = None, limit: int = LIMIT,
    ) -> None:  # fmt: skip
        if not name or len(name) > NAME_LIMIT or set(name) & set("+#/\0"):
            raise BadConfig(f"a producer's name has 1 to {NAME_LIMIT} characters, none of them + # /: not {name!r}")
        self._name, self._path, self._limit = name, store, limit
        self._actor = Actor(
            host, port, producer=name, agent=agent, topics=(), username=username, password=password, tls=tls
        )
        self._stack = AsyncExitStack()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="producer's store")  # SQLite's: one call at a time
        self._under_way = Turns()
        self._acknowledged: list[Kept] = []
        self._some = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def resent(self) -> int:
        """Messages that were sent once more."""
        return self._actor.resent

    async def __aenter__(self) -> Self:
        """Opens the file and begins to send what waits in it. Raises Unavailable or Corrupt as `Store` does."""
        async with AsyncExitStack() as stack:
            stack.callback(self._thread.shutdown)
            self._store = await self._in_thread(lambda: Store(self._path, self._limit))
            stack.callback(lambda: self._thread.submit(self._store.close))
            for kept in await self._in_thread(self._store.waiting):
                self._under_way.put(kept)
            await stack.enter_async_context(self._actor.running())
            stack.push_async_callback(self._end)
            self._tasks = [asyncio.create_task(self._forget(), name="producer forget")]
            self._tasks += [asyncio.create_task(self._send(), name=f"producer send {n}") for n in range(AT_ONCE)]
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        """What is not acknowledged stays in the file, for the next run."""
        await self._stack.aclose()

    async def post(self, topic: str, payload: object, *, numbered: bool = True) -> str:
        """Returns the message's id once the file has it. `payload`: bytes as they are, anything else as JSON. `numbered` = False
        for what is no sensor's message, such as feedback; below `corrigible/` nothing is. Raises BadInput if the message cannot
        be sent or too many wait, Unavailable if the disk does not take it."""
        body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        _check(topic)
        if len(body) > PAYLOAD_LIMIT:
            raise BadInput(f"the payload has {len(body)} bytes; the agent reads at most {PAYLOAD_LIMIT}")
        counted = numbered and not topic.startswith("corrigible/")
        return await asyncio.shield(self._add(topic, body, counted))

    async def delivered(self) -> None:
        """Returns when the agent has everything that was posted up to now (and that can be sent at all: see `_send`)."""
        await self._under_way.join()

    async def _add(self, topic: str, body: bytes, numbered: bool) -> str:
        """To its end although the caller is cancelled: what is in the file is sent."""
        kept = await self._in_thread(lambda: self._store.add(topic, body, numbered=numbered))
        self._under_way.put(kept)
        return kept.identity(self._name)

    async def _send(self) -> None:
        while True:
            before, kept = await self._under_way.get()
            try:
                _check(kept.topic)
                acknowledged = await self._actor.deliver(
                    kept.topic, kept.payload, kept.identity(self._name), kept.told(self._name), before=before, turn=TURN
                )
            except Exception as error:  # it must not end the sender; it stays in the file, and a person has to know
                log.warning(
                    "a stored message cannot be sent", topic=kept.topic[:100], place=kept.place, reason=str(error)
                )
                self._under_way.done()
                continue
            if not acknowledged:
                self._under_way.back(kept, before + TURN)
                continue
            self._under_way.heard(kept.topic)
            self._acknowledged.append(kept)
            self._some.set()

    async def _forget(self) -> None:
        """What was acknowledged together leaves the file together."""
        while True:
            await self._some.wait()
            self._some.clear()
            gone, self._acknowledged = self._acknowledged, []
            try:
                await self._in_thread(lambda gone=gone: self._store.forget([kept.place for kept in gone]))  # type: ignore[misc]
            except Exception as error:  # the agent has them; those that stay in the file are sent again by the next run
                log.warning("acknowledged messages stay in the file", count=len(gone), reason=str(error))
            for _ in gone:
                self._under_way.done()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _check(topic: str) -> None:
    """Raises BadInput if no broker would take it: a client refuses it, or the broker ends the connection, again and again. That
    is so for control characters, too (mosquitto)."""
    if not topic or set(topic) & set("+#") or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in topic):
        raise BadInput(
            f"{topic[:100]!r} is no topic to publish on: it is empty, or has a + or # or a control character"
        )
    if (size := len(topic.encode())) > TOPIC_LIMIT:
        raise BadInput(f"the topic {topic[:100]!r}... has {size} bytes; MQTT allows at most {TOPIC_LIMIT}")
