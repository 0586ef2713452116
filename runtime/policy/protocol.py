"""What daemon and policy worker say to each other: msgpack frames with a 4-byte length on a local socket."""

from __future__ import annotations

import asyncio
import socket

import msgspec

from runtime import framing
from runtime.catalogue import Catalogue
from runtime.errors import Unavailable
from runtime.learning.jobs import Base
from runtime.messages import Action, Message

FRAME_LIMIT = 64 << 20  # bytes


class Row(Message, frozen=True, kw_only=True):
    """The policy's answer for one text. `log_probs` belong to `actions`; `free` = written, not picked."""

    actions: list[Action]
    log_probs: list[float]
    chosen: Action
    log_p: float
    free: bool = False
    log_p_gold: float | None = None
    feature: bytes = b""  # float16: what the situation is like (`features`), if it was asked for


class Hello(Message, frozen=True, kw_only=True, tag=True):
    """Ready: the worker's first frame."""

    base: Base
    pid: int


class Score(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0  # the answer carries it back; answers may overtake each other
    live: bool = False  # a decision: it goes before the batches of an evaluation
    texts: list[str]
    catalogue: Catalogue
    adapter: str
    floor: float = 0.0
    gold: list[Action] = []
    feature: bool = False


class Scored(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    rows: list[Row]
    adapter: str  # which one really answered


class Look(Message, frozen=True, kw_only=True, tag=True):
    """What are these situations like?"""

    number: int = 0
    texts: list[str]
    catalogue: Catalogue


class Looked(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    features: list[bytes]


class Load(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    adapter: str
    directory: str


class Loaded(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    fingerprint: list[float]
    held_ms: float = 0.0  # its longest step: by so much a decision may have been held up


class Unload(Message, frozen=True, kw_only=True, tag=True):
    number: int = 0
    adapter: str


class Done(Message, frozen=True, kw_only=True, tag=True):
    """Carried out."""

    number: int = 0
    held_ms: float = 0.0


class Failed(Message, frozen=True, kw_only=True, tag=True):
    """The request could not be answered; the sentence is for people."""

    number: int = 0
    error: str


Request = Score | Look | Load | Unload
Answer = Hello | Scored | Looked | Loaded | Done | Failed

_requests = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def frame(message: Message) -> bytes:
    body = msgspec.msgpack.encode(message)
    if len(body) > FRAME_LIMIT:
        raise Unavailable(
            f"a message of {len(body)} bytes is too large for the policy worker; send fewer texts at once"
        )
    return framing.framed(body)


def send(connection: socket.socket, message: Message) -> None:
    connection.sendall(frame(message))


def receive(connection: socket.socket) -> Request:
    """The next request. Raises EOFError when the daemon is gone."""
    request: Request = _requests.decode(framing.receive(connection))
    return request


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """The next answer. Raises IncompleteReadError when the worker is gone."""
    try:
        body = await framing.read(reader, FRAME_LIMIT)
    except framing.Oversized as error:
        raise Unavailable(f"the policy worker sent {error}") from None
    answer: Answer = _answers.decode(body)
    return answer
