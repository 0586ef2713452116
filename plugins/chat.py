"""Sensor, actuator and critic for conversations without MQTT: people write lines into a socket, replies come back.

The socket is a file in the data directory (`nc -U data/chat.sock`), so only this machine's users with access to it can
talk. The same scope answers `corrigible chat` and the page, which hand their text in by HTTP. One line is one message:

    any text         a message; the answer comes back as one line
    = the answer     what would have been right for my last message (a correction)
    +                that was right (an acceptance)
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog

from runtime.catalogue import REPLY, Tool
from runtime.errors import CorrigibleError, Unavailable
from runtime.messages import (
    ASK,
    Action,
    Command,
    Decision,
    Feedback,
    FeedbackKind,
    Observation,
    Outcome,
    Percept,
    new_id,
)
from runtime.roles import Actuator, Critic, Emit, Sensor, observe

LINE_LIMIT = 8192  # bytes of one message
ACCEPT, CORRECT = "+", "="
log = structlog.get_logger("chat")


@dataclass
class Chat(Sensor, Actuator, Critic):
    """[[plugin]]
    use = "plugins.chat:Chat"
    scope = "chat"
    socket = "chat.sock"   # in the data directory; empty = no socket, only HTTP and the command line
    patience = 60.0        # seconds to wait for an answer
    """

    scope: str = "chat"
    socket: str = "chat.sock"
    patience: float = 60.0

    def __post_init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Decision]] = {}  # observation or percept id -> its decision
        self._numbers = itertools.count(1)
        self.opened = asyncio.Event()  # people can talk now

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return {self.scope: (REPLY,)}

    async def act(self, command: Command) -> Outcome:
        raise Unavailable("chat replies need no command: the decision is the reply")

    async def sense(self, emit: Emit) -> None:
        if not self.socket:
            return
        path = self.context.data / self.socket
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(
            lambda reader, writer: self._talk(reader, writer, emit), path, limit=LINE_LIMIT
        )
        path.chmod(0o600)
        try:
            async with server:
                self.opened.set()
                log.info("chat is open", socket=str(path))
                await server.serve_forever()
        finally:
            path.unlink(missing_ok=True)

    def criticise(self, message: Observation | Percept | Decision | Command | Outcome) -> Iterable[Feedback]:
        """Finds the decision on what somebody said here. What they say about it goes through `emit`."""
        if isinstance(message, Percept):
            for cause in message.causes:
                if cause in self._waiting:
                    self._waiting[message.id] = self._waiting[cause]
        elif isinstance(message, Decision) and message.percept_id in self._waiting:
            with suppress(asyncio.InvalidStateError):
                self._waiting.pop(message.percept_id).set_result(message)
        return ()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, emit: Emit) -> None:
        """One connection, line by line, until it hangs up."""
        who = f"chat {next(self._numbers)}"
        last: Decision | None = None
        with suppress(ConnectionError):
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    writer.write(f"error: a line has at most {LINE_LIMIT} bytes\n".encode())
                    break
                if not line:
                    break
                text = line.decode(errors="replace").strip()
                if not text:
                    continue
                try:
                    answer, last = await self._line(text, who, last, emit)
                except CorrigibleError as error:
                    answer = f"error: {error}"
                writer.write(answer.replace("\n", " ").encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _line(self, text: str, who: str, last: Decision | None, emit: Emit) -> tuple[str, Decision | None]:
        right = text.removeprefix(CORRECT).strip()
        if text != ACCEPT and not (text.startswith(CORRECT) and right):
            last = await self.say(text, who, emit)
            return reply_of(last), last
        if last is None:
            return "error: there is no answer yet to say anything about", None
        kind: FeedbackKind = "acceptance" if text == ACCEPT else "correction"
        action = None if text == ACCEPT else Action(tool=REPLY.name, arguments={"text": right})
        await emit(Feedback(id=new_id("fb"), decision_id=last.id, kind=kind, source=who, at=time.time(), action=action))
        return f"thank you, {kind} noted", last

    async def say(self, text: str, who: str, emit: Emit) -> Decision:
        """Hand a message in and wait for the decision on it."""
        message = observe(f"chat/{self.scope}/speech", {"input": text}, at=time.time(), source=who)
        decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._waiting[message.id] = decided
        try:
            await emit(message)
            async with asyncio.timeout(self.patience):
                return await decided
        except TimeoutError:
            raise Unavailable(f"no answer within {self.patience:g} s; see `corrigible status`") from None
        finally:
            for key in [key for key, value in self._waiting.items() if value is decided]:
                del self._waiting[key]


def reply_of(decision: Decision) -> str:
    """A decision in words for the person who asked."""
    action = decision.actions[0]
    if action == ASK:
        return " | ".join(["which one?", *(_words(choice) for choice in decision.choices)])
    return _words(action)


def _words(action: Action) -> str:
    if action.tool == REPLY.name:
        return str(action.arguments.get("text", ""))
    return " ".join([action.tool, *map(str, action.arguments.values())])
