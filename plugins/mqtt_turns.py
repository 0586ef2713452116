"""Who is sent next: the oldest message of the topic that was least often left without an acknowledgement.

A topic that nobody hears takes up the senders once, and from then on only while no other has anything to say. Within a topic the
oldest is always first, also after the agent was away.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from heapq import heappop, heappush

from plugins.mqtt_store import Kept


class Turns:
    """What waits to be sent, and what is under way."""

    def __init__(self) -> None:
        self._of: dict[str, list[tuple[int, int, Kept]]] = {}  # by topic, each a heap: place, attempts so far, message
        self._next: list[tuple[int, int, str]] = []  # a heap: turns missed, place, topic; outdated ones are among them
        self._missed: Counter[str] = Counter()
        self._tokens: asyncio.Queue[None] = asyncio.Queue()  # one a message: who waits for one, and for all

    def put(self, kept: Kept) -> None:
        self._put(kept, 0)

    async def get(self) -> tuple[int, Kept]:
        """How often it was sent before, and the message; to be followed by `back` or `heard` and `done`."""
        await self._tokens.get()
        while True:
            missed, place, topic = heappop(self._next)
            waiting = self._of.get(topic)
            if waiting and waiting[0][0] == place and self._missed[topic] == missed:
                break
        _, attempts, kept = heappop(waiting)
        if waiting:
            self._point(topic)
        else:
            del self._of[topic]
        if not self._of:
            self._next.clear()  # outdated ones pile up nowhere
        return attempts, kept

    def back(self, kept: Kept, attempts: int) -> None:
        """Nobody acknowledged it: others first."""
        self._missed[kept.topic] += 1
        self._put(kept, attempts)
        self._point(kept.topic)
        self.done()

    def heard(self, topic: str) -> None:
        """Somebody acknowledges this topic (again)."""
        if self._missed.pop(topic, 0) and topic in self._of:
            self._point(topic)

    def done(self) -> None:
        self._tokens.task_done()

    async def join(self) -> None:
        """Returns when everything that was put is done."""
        await self._tokens.join()

    def _put(self, kept: Kept, attempts: int) -> None:
        waiting = self._of.setdefault(kept.topic, [])
        heappush(waiting, (kept.place, attempts, kept))
        if waiting[0][0] == kept.place:
            self._point(kept.topic)
        self._tokens.put_nowait(None)

    def _point(self, topic: str) -> None:
        heappush(self._next, (self._missed[topic], self._of[topic][0][0], topic))
