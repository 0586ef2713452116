"""Between agent and broker: a proxy that knows where an MQTT packet ends, and can lose, double, delay or cut just those.

Every interference is counted, so that the nemesis can prove it. Directions: `up` is agent to broker, `down` the other way.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

CONNACK, PUBLISH, PUBACK = 2, 3, 4  # packet types
QOS = 0x06  # in the first byte of a PUBLISH
Direction = Literal["up", "down"]
Harm = Literal["lose", "double", "delay"]


class Proxy:
    """`port` is where the agent connects. `harm` is what is done to the next packets of a type."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._budget: Counter[tuple[Harm, Direction, int]] = Counter()
        self._hole = False
        self.port = 0
        self.delay = 0.05  # seconds a delayed packet waits, and all behind it
        self.done: Counter[str] = Counter()  # what was really done

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def harm(self, harm: Harm, direction: Direction, kind: int, count: int) -> None:
        """Do it to the next `count` packets of this type."""
        self._budget[harm, direction, kind] += count

    def spare(self) -> None:
        """No more harm from here on."""
        self._budget.clear()
        self._hole = False

    def swallow(self) -> None:
        """A black hole: connections stay open and nothing passes."""
        self._hole = True

    @property
    def open(self) -> int:
        """Connections that stand."""
        return len(self._writers) // 2

    def cut(self) -> int:
        """Reset every connection; how many there were. Two ends are one connection."""
        ends = tuple(self._writers)
        for writer in ends:
            writer.transport.abort()
        self.done["cut"] += len(ends) // 2
        return len(ends) // 2

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self.done["connections"] += 1
        ends = (writer, upstream[1])
        self._writers.update(ends)
        for end in ends:
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pumps = (
            asyncio.create_task(self._pump(reader, upstream[1], "up")),
            asyncio.create_task(self._pump(upstream[0], writer, "down")),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)  # one end went: so does the other
        finally:
            for pump in pumps:
                pump.cancel()
            for end in ends:
                end.close()
            self._writers.difference_update(ends)
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                packet = await read_packet(reader)
                for copy in await self._harmed(packet, direction):
                    writer.write(copy)
                await writer.drain()

    async def _harmed(self, packet: bytes, direction: Direction) -> list[bytes]:
        """The packet as it goes on: none, one or two of it."""
        kind = packet[0] >> 4
        if kind == CONNACK and direction == "down":
            self.done["sessions resumed" if packet[-1:] and _session_present(packet) else "sessions new"] += 1
        if self._hole:
            self.done["swallowed"] += 1
            return []
        if self._take("lose", direction, kind):
            return []
        if self._take("delay", direction, kind):
            await asyncio.sleep(self.delay)
        if kind == PUBLISH and not packet[0] & QOS:
            return [packet]  # what is sent at QoS 0 nobody repeats
        return [packet, packet] if self._take("double", direction, kind) else [packet]

    def _take(self, harm: Harm, direction: Direction, kind: int) -> bool:
        if self._budget[harm, direction, kind] <= 0:
            return False
        self._budget[harm, direction, kind] -= 1
        self.done[harm] += 1
        return True


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """One whole packet: type and flags, length in 7-bit groups, rest. Raises IncompleteReadError at the end."""
    head = await reader.readexactly(1)
    length = shift = 0
    while True:
        group = await reader.readexactly(1)
        head += group
        length |= (group[0] & 0x7F) << shift
        if not group[0] & 0x80:
            return head + await reader.readexactly(length)
        shift += 7


def _session_present(packet: bytes) -> bool:
    body = packet[2:]  # a CONNACK is shorter than 128 bytes here
    return bool(body and body[0] & 1)
