"""The process of an isolated plugin: confines itself, imports the plugin, and answers the daemon until the socket closes.

    python -P -m runtime.isolation.child FD

A plugin in here sees what it sees in the daemon: `start`, `sense(emit)`, `perceive` ... Whatever it raises is an answer.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from datetime import UTC, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import structlog

from runtime import errors
from runtime.config import BrokerConfig
from runtime.errors import CorrigibleError
from runtime.isolation import frames, sandbox
from runtime.isolation.frames import (
    HEARD,
    Act,
    Acted,
    Answer,
    Criticise,
    Described,
    Done,
    Emitted,
    Judge,
    Noticed,
    Perceive,
    Ping,
    Raised,
    Request,
    Sense,
    Setup,
    Situations,
    Start,
    Stop,
    Told,
    Verdict,
)
from runtime.messages import Feedback, Message, Observation
from runtime.plugins import load, roles_of
from runtime.roles import Actuator, Context, Plugin, World

WINDOW = 32  # emitted messages the daemon has not answered yet; the next one waits
SETTLING = 1.0  # seconds a sensor that is told to stop gets to notice


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    try:
        setup = frames.receive(connection)
    except EOFError:
        return
    _log_plainly()
    zone = zone_of(setup.zone)  # read now: afterwards its file may be closed
    first: Message
    plugin = None
    try:
        lacking = sandbox.enter(setup.confinement)
        plugin = _built(setup, zone)
        tools = dict(plugin.tools()) if isinstance(plugin, Actuator) else {}
        first = Described(roles=roles_of(plugin), tools=tools, lacking=lacking)
        greeting = frames.frame(first)
    except BaseException as error:  # also SystemExit: what a plugin does at its import is its answer
        greeting = frames.frame(Raised(error=_said(error)))
        plugin = None
    connection.sendall(greeting)
    if plugin is not None:
        asyncio.run(_live(connection, plugin, zone))
    os._exit(0)  # threads the plugin left do not hold the process


def _log_plainly() -> None:
    """Lines on stderr: the daemon's log puts its own time and the plugin's name before them."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer(key_order=["event"])],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _built(setup: Setup, zone: tzinfo) -> Plugin:
    context = Context(
        agent=setup.agent, data=Path(setup.data), broker=BrokerConfig.model_validate(setup.broker), zone=zone,
        notice=lambda kind, text: structlog.get_logger("notices").warning(text, kind=kind),
    )  # fmt: skip
    (plugin,) = load([{**setup.entry, "name": setup.name}], context)
    return plugin


def zone_of(name: str) -> tzinfo:
    """`Europe/Vienna`, or seconds east of UTC."""
    if name.lstrip("+-").isdigit():
        return timezone(timedelta(seconds=int(name))) if int(name) else UTC
    return ZoneInfo(name)


async def _live(connection: socket.socket, plugin: Plugin, zone: tzinfo) -> None:
    reader, writer = await asyncio.open_connection(sock=connection)
    host = Host(plugin, zone, writer)
    try:
        while True:
            await host.take(await frames.read_request(reader))
    except (asyncio.IncompleteReadError, ConnectionError):
        return  # the daemon is gone, and so are we


class Host:
    """One plugin and what it is asked. Questions are answered in their order; commands run side by side."""

    def __init__(self, plugin: Any, zone: tzinfo, writer: asyncio.StreamWriter) -> None:
        self._plugin = plugin
        self._zone = zone
        self._writer = writer
        self._numbers = itertools.count(1)
        self._emitted: dict[int, asyncio.Future[Told]] = {}
        self._window = asyncio.Semaphore(WINDOW)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sensing: asyncio.Task[None] | None = None

    async def take(self, request: Request | Told) -> None:
        match request:
            case Told():
                future = self._emitted.pop(request.number, None)
                if future is not None and not future.done():
                    future.set_result(request)
            case Sense():
                self._sensing = self._beside(request)
            case Start() | Stop() | Act():
                self._beside(request)
            case _:
                await self._answered(request)

    def _beside(self, request: Request) -> asyncio.Task[None]:
        task = asyncio.create_task(self._answered(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answered(self, request: Request) -> None:
        """Ask the plugin; what it raises, and what it gives that no frame can carry, is an answer too."""
        try:
            body = frames.frame(await self._answer(request))
        except asyncio.CancelledError:
            return
        except Exception as error:
            body = frames.frame(Raised(number=request.number, error=_said(error)))
        self._writer.write(body)
        await self._writer.drain()

    async def _answer(self, request: Request) -> Answer:
        number, plugin = request.number, self._plugin
        match request:
            case Start():
                await plugin.start()
            case Stop():
                await self._end_sensing()
                await plugin.stop()
            case Sense():
                await plugin.sense(self._emit)
            case Perceive():
                world = World(
                    {reading.name: reading for reading in request.readings}, request.now.astimezone(self._zone)
                )
                return Situations(number=number, found=list(plugin.perceive(world, request.observation)))
            case Judge():
                now = request.now.astimezone(self._zone)
                return Verdict(number=number, reason=plugin.judge(request.percept, request.action, now))
            case Act():
                return Acted(number=number, outcome=await plugin.act(request.command))
            case Criticise():
                message = msgspec.msgpack.decode(request.message, type=HEARD[request.kind])
                return Noticed(number=number, feedback=list(plugin.criticise(message)))
            case Ping():
                pass
        return Done(number=number)

    async def _end_sensing(self) -> None:
        if self._sensing is not None and not self._sensing.done():
            self._sensing.cancel()
            await asyncio.wait({self._sensing}, timeout=SETTLING)

    async def _emit(self, message: Observation | Feedback) -> None:
        """The plugin's `emit`: returns once the daemon's has."""
        async with self._window:
            number = next(self._numbers)
            told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
            self._emitted[number] = told
            if isinstance(message, Observation):
                emitted = Emitted(number=number, observation=message)
            else:
                emitted = Emitted(number=number, feedback=message)
            self._writer.write(frames.frame(emitted))
            await self._writer.drain()
            answer = await told
        if answer.error:
            raise _error(answer.error)(answer.why)


def _error(name: str) -> Callable[[str], Exception]:
    kind = getattr(errors, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, CorrigibleError) else CorrigibleError


def _said(error: BaseException) -> str:
    text = str(error) if isinstance(error, CorrigibleError) else f"{type(error).__name__}: {error}"
    return text[:2000]


if __name__ == "__main__":
    main()
