"""Messages between our processes: a length of four bytes, and so many bytes. What they mean is the business of each pair."""

from __future__ import annotations

import asyncio
import socket
import struct

from runtime.errors import BadInput

LENGTH = struct.Struct(">I")
AT_ONCE = 1 << 20  # bytes asked of the socket at once


class Oversized(BadInput):
    """A frame is larger than the limit: nothing after it can be trusted."""


def framed(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body


def receive(connection: socket.socket) -> bytes:
    """The next body, in a process that may wait. Raises EOFError when the other side is gone."""
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return _exactly(connection, length)


async def read(reader: asyncio.StreamReader, limit: int) -> bytes:
    """The next body. Raises IncompleteReadError when the other side is gone, Oversized for more than `limit` bytes."""
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > limit:
        raise Oversized(f"a frame of {length} bytes; the most is {limit}")
    return await reader.readexactly(length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(min(count - len(parts), AT_ONCE))
        if not part:
            raise EOFError("the other side closed the connection")
        parts += part
    return bytes(parts)
