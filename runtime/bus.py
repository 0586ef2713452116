"""The nerve: typed publish/subscribe between coroutines of one process, bounded, queues from the moment of subscribe.

The journal is the truth; what is on the bus when the power goes is found again there. A stage's subscription is
*full* delivery: a publisher waits while it is full, which is the back-pressure up to the broker. A watcher's
(`lossy=True`, for the console) never holds anybody up: it loses its oldest messages and counts them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from runtime.messages import Message

QUEUE_SIZE = 1024  # messages a subscriber may be behind

M = TypeVar("M", bound=Message)


class Subscription(Generic[M]):
    """One subscriber's queue; iterate it, and close it (or leave its `with` block) when done."""

    def __init__(self, bus: Bus, types: tuple[type[M], ...], size: int, lossy: bool) -> None:
        self.types = types
        self.lossy = lossy
        self.dropped = 0
        self._bus = bus
        self._size = size
        self._queue: deque[M] = deque()
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def __len__(self) -> int:
        return len(self._queue)

    def __enter__(self) -> Subscription[M]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop receiving and let a waiting publisher go on."""
        self._bus._leave(self)
        self._size = 0
        self.lossy = True
        self._drained.set()

    async def put(self, message: M) -> None:
        while not self.lossy and len(self._queue) >= self._size:
            self._drained.clear()
            await self._drained.wait()
        if self.lossy and len(self._queue) >= self._size:
            self.dropped += 1
            if not self._size:
                return
            self._queue.popleft()
        self._queue.append(message)
        self._filled.set()

    async def get(self) -> M:
        while not self._queue:
            self._filled.clear()
            await self._filled.wait()
        message = self._queue.popleft()
        self._drained.set()
        return message

    async def several(self, most: int) -> list[M]:
        """The next message, and those that wait behind it."""
        messages = [await self.get()]
        while self._queue and len(messages) < most:
            messages.append(self._queue.popleft())
        return messages

    async def __aiter__(self) -> AsyncIterator[M]:
        while True:
            yield await self.get()


class Bus:
    """Everybody who subscribed to a message's type gets it, in the order of publishing."""

    def __init__(self) -> None:
        self._subscriptions: dict[type[Message], list[Subscription[Message]]] = {}
        self.published = 0

    def subscribe(self, *types: type[M], size: int = QUEUE_SIZE, lossy: bool = False) -> Subscription[M]:
        """Start receiving these types now: nothing published after this call returns is missed."""
        subscription = Subscription(self, types, size, lossy)
        for kind in types:
            self._subscriptions.setdefault(kind, []).append(subscription)  # type: ignore[arg-type]
        return subscription

    async def publish(self, message: Message) -> None:
        """Hand the message to every subscriber; waits for those that are full."""
        self.published += 1
        for subscription in tuple(self._subscriptions.get(type(message), ())):
            await subscription.put(message)

    @property
    def backlog(self) -> int:
        """The longest queue, in messages."""
        return max((len(s) for row in self._subscriptions.values() for s in row), default=0)

    def _leave(self, subscription: Subscription[M]) -> None:
        for kind in subscription.types:
            row = self._subscriptions.get(kind, [])
            row[:] = [other for other in row if other is not subscription]
