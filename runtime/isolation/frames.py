"""What the daemon and an isolated plugin say to each other: msgpack frames with a 4-byte length on a local socket.

The framing is the policy worker's; the limits are not, for here the other side is not trusted. The daemon asks with a number, the
child answers with it; a child's `Emitted` has numbers of its own and is answered by `Told`.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from runtime import framing
from runtime.catalogue import Tool
from runtime.errors import BadInput
from runtime.messages import Action, Command, Decision, Feedback, Message, Observation, Outcome, Percept
from runtime.roles import Reading, Situation

LIMIT = 256 << 10  # bytes of a frame of the child; a payload may have 64 KiB
TOLD = 4 << 20  # bytes of one of the daemon; a house may have thousands of readings


class Confinement(Message, frozen=True, kw_only=True):
    """What the child does to itself before it imports the plugin."""

    parent: int  # the daemon's pid
    uid: int | None  # to become; None = stay
    gid: int | None
    search: bool  # where it becomes another user: files are closed by Landlock only, not by their owner
    read: list[str]
    look: list[str]  # directories whose names may be listed
    write: list[str]
    network: bool
    connect: list[int]
    listen: list[int]
    memory: int  # bytes
    files: int
    processes: int
    cpu: int  # seconds; 0 = any
    disk: int  # bytes


class Setup(Message, frozen=True, kw_only=True, tag=True):
    """The first frame: who the child is."""

    number: int = 0
    name: str
    entry: dict[str, Any]  # with `use`
    agent: str
    data: str
    broker: dict[str, Any]
    zone: str  # IANA name, or seconds east of UTC
    confinement: Confinement


class Start(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0


class Stop(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0


class Sense(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0


class Ping(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0


class Perceive(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    readings: list[Reading]
    now: datetime
    observation: Observation


class Judge(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    percept: Percept
    action: Action
    now: datetime


class Act(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    command: Command


class Criticise(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    kind: str  # a key of HEARD
    message: msgspec.Raw


class Told(Message, frozen=True, kw_only=True, tag=True):
    """What became of an emitted message; `error` is the class of what `emit` raises there."""

    number: int
    error: str = ""
    why: str = ""


class Described(Message, frozen=True, kw_only=True, tag=True):
    """Imported, built and confined: the child's first frame."""

    number: int = 0
    roles: list[str]
    tools: dict[str, tuple[Tool, ...]]
    lacking: list[str]  # of the confinement, what this machine cannot do


class Done(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0


class Raised(Message, frozen=True, kw_only=True, tag=True):
    """The plugin raised."""

    number: int = 0
    error: str


class Situations(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    found: list[Situation]


class Verdict(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    reason: str | None


class Acted(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    outcome: Outcome


class Noticed(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    feedback: list[Feedback]


class Emitted(Message, frozen=True, kw_only=True, tag=True):
    number: int
    observation: Observation | None = None
    feedback: Feedback | None = None


class Numbered(msgspec.Struct):
    """What is left of an answer that cannot be read: whose it was."""

    number: int = -1


HEARD: dict[str, type[Message]] = {kind.__name__: kind for kind in (Observation, Percept, Decision, Command, Outcome)}
Request = Start | Stop | Sense | Ping | Perceive | Judge | Act | Criticise
ToChild = Setup | Request | Told
Answer = Described | Done | Raised | Situations | Verdict | Acted | Noticed
FromChild = Answer | Emitted

_to_child = msgspec.msgpack.Decoder(ToChild)
_numbers = msgspec.msgpack.Decoder(Numbered)
_from_child = msgspec.msgpack.Decoder(FromChild)


class Unreadable(BadInput):
    """A frame's body is none of ours; `number` if that much of it can be read."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


def frame(message: Message, limit: int = LIMIT) -> bytes:
    body = msgspec.msgpack.encode(message)
    if len(body) > limit:
        raise framing.Oversized(
            f"a message of {len(body)} bytes is too large for an isolated plugin; the most is {limit}"
        )
    return framing.framed(body)


def receive(connection: socket.socket) -> Setup:
    """The first frame, in the child. Raises EOFError if the daemon is gone."""
    setup = _to_child.decode(framing.receive(connection))
    assert isinstance(setup, Setup), setup
    return setup


async def read_request(reader: asyncio.StreamReader) -> Request | Told:
    """The next one, in the child. Raises IncompleteReadError if the daemon is gone."""
    request: Setup | Request | Told = _to_child.decode(await framing.read(reader, TOLD))
    assert not isinstance(request, Setup)
    return request


async def read_answer(reader: asyncio.StreamReader) -> FromChild:
    """The next one, in the daemon. Raises Unreadable for what cannot be read, Oversized for what is too long, IncompleteReadError
    if the child is gone."""
    body = await framing.read(reader, LIMIT)
    try:
        answer: FromChild = _from_child.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError) as error:
        number = -1
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError):
            number = _numbers.decode(body).number
        raise Unreadable(f"a frame that cannot be read: {error}", number) from None
    return answer
