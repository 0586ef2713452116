"""Server-sent events: what happens on the bus, as the page shows it, to everybody who watches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent

from runtime.bus import Subscription
from runtime.errors import CorrigibleError, Unavailable
from runtime.messages import Decision, Feedback, Message, Outcome

if TYPE_CHECKING:
    from runtime.control import Control

WATCHERS = 16  # open streams, at most
PING = 15  # seconds between signs of life
SEND_TIMEOUT = 10.0  # seconds a browser may take to read one event before we hang up


class Streams:
    """The open streams of one console; `close` ends them all, so that the server can stop."""

    def __init__(self) -> None:
        self.open = 0
        self._closing = asyncio.Event()

    def close(self) -> None:
        self._closing.set()

    def response(self, control: Control) -> EventSourceResponse:
        if self.open >= WATCHERS:
            raise Unavailable(f"{WATCHERS} pages are watching already; close one")
        return EventSourceResponse(self._watch(control), ping=PING, send_timeout=SEND_TIMEOUT)

    async def _watch(self, control: Control) -> AsyncIterator[ServerSentEvent]:
        self.open += 1
        try:
            with control.showing.subscribe() as messages:
                yield ServerSentEvent(event="hello", data="{}")
                lost = 0
                while (message := await self._next(messages)) is not None:
                    if messages.dropped > lost:
                        lost = messages.dropped
                        yield ServerSentEvent(event="lost", data=str(lost))
                    with suppress(CorrigibleError):  # a row that cannot be shown is found again by the next reload
                        yield await _event(control, message)
        finally:
            self.open -= 1

    async def _next(self, messages: Subscription[Message]) -> Message | None:
        """The next message, or None when the console closes."""
        if self._closing.is_set():
            return None
        getting = asyncio.ensure_future(messages.get())
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            done, _ = await asyncio.wait({getting, closing}, return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting in done else None
        finally:
            getting.cancel()
            closing.cancel()


async def _event(control: Control, message: Message) -> ServerSentEvent:
    kind = type(message).__name__.lower()
    return ServerSentEvent(event=kind, data=msgspec.json.encode(await _shown(control, message)).decode())


async def _shown(control: Control, message: Message) -> Any:
    if isinstance(message, Decision):
        return await control.showing.row(message)
    if isinstance(message, Outcome):
        return {"decision_id": message.decision_id, "status": message.status, "reason": message.reason}
    if isinstance(message, Feedback):
        return {"decision_id": message.decision_id, "kind": message.kind, "source": message.source}
    return message
