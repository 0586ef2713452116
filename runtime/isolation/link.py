"""One life of an isolated plugin's process: started, asked within time, and ended for good whatever it does."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar

from msgspec.structs import replace

from runtime.errors import Unavailable
from runtime.framing import Oversized
from runtime.isolation import frames
from runtime.isolation.frames import Answer, Described, Emitted, FromChild, Raised, Request, Setup, Told
from runtime.isolation.output import captured
from runtime.messages import Message

BIRTH = 30.0  # seconds an interpreter and a plugin's imports may take
WINDOW = 64  # emitted messages that may wait; an honest child keeps to half
UNREAD = 2 * frames.TOLD  # bytes the child may leave unread
LAST_WORDS = 1.0  # seconds to learn how a process ended that closed its socket
SHOWN = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONHASHSEED", "VIRTUAL_ENV")  # variables every child has

A = TypeVar("A", bound=Message)


class Link:
    """`open`, then `ask`; `ended` raises what it died of."""

    def __init__(self, name: str, reject: Callable[[str], None], shed: Callable[[], None]) -> None:
        self._name = name
        self._reject = reject
        self._shed = shed
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._death: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.emitted: asyncio.Queue[Emitted] = asyncio.Queue(WINDOW)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @property
    def alive(self) -> bool:
        return self._writer is not None and not self._death.done()

    async def open(self, setup: Setup, shown: list[str]) -> Described:
        """Start the process and hear what it is. Raises Unavailable with the reason if it does not come to that."""
        ours, theirs = socket.socketpair()
        printed, prints = _pipe()
        self._tasks.append(asyncio.create_task(self._capture(printed)))
        with theirs, prints:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "runtime.isolation.child", str(theirs.fileno()),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, stdout=prints,
                stderr=prints, env=_environment(setup.data, shown), cwd=setup.data,
                start_new_session=True,
            )  # fmt: skip
        reader, self._writer = await asyncio.open_connection(sock=ours)
        first: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[0] = first
        self._tasks.append(asyncio.create_task(self._hear(reader), name=f"hears {self._name}"))
        self.send(setup)
        return await self._awaited(first, BIRTH, Described, "its start")

    async def ask(self, request: Request, within: float | None, expected: type[A]) -> A:
        """Its answer. Raises Unavailable if the plugin raised, gave something else, took too long (that ends it) or is gone."""
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self.send(replace(request, number=number))
            return await self._awaited(future, within, expected, type(request).__name__)
        finally:
            self._asked.pop(number, None)

    async def _awaited(self, future: asyncio.Future[Answer], within: float | None, expected: type[A], what: str) -> A:
        either: set[asyncio.Future[Any]] = {future, self._death}
        await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        if not future.done() and not self._death.done():
            self.fail(Unavailable(f"it did not answer within {within:g} s ({what}) and was ended"))
        if not future.done():
            raise Unavailable(f"{self._name} is not running: {self._death.exception()}")
        answer = future.result()
        if isinstance(answer, Raised):
            raise Unavailable(answer.error)
        if not isinstance(answer, expected):
            self._reject(f"an answer that is none ({type(answer).__name__} to {what})")
            raise Unavailable(f"{self._name} answered {what} with {type(answer).__name__}")
        return answer

    def send(self, message: Setup | Request | Told) -> None:
        """Raises Unavailable if the child is gone, BadInput if the message is too large for it."""
        if self._writer is None or self._death.done():
            raise Unavailable(f"{self._name} is not running")
        self._writer.write(frames.frame(message, frames.TOLD))
        if self._writer.transport.get_write_buffer_size() > UNREAD:
            self.fail(Unavailable("it does not read what it is told and was ended"))

    async def ended(self) -> NoReturn:
        """Wait for the end, and raise what it was."""
        await asyncio.shield(self._death)
        raise AssertionError("a death is an exception")

    def fail(self, error: Exception) -> None:
        """This life is over."""
        if not self._death.done():
            self._death.set_exception(error)
            self._death.exception()  # known from here on; nobody need be waiting
        self._kill()

    async def close(self) -> None:
        """Whatever state it is in: when this returns, no process is left."""
        self.fail(Unavailable("it was stopped"))
        if self._writer is not None:
            self._writer.transport.abort()
        if self._process is not None:
            await self._process.wait()
            await asyncio.wait(self._tasks[:1], timeout=LAST_WORDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            with suppress(OSError):
                await self._writer.wait_closed()

    def _kill(self) -> None:
        """The whole session, so that nothing it started stays."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _capture(self, printed: BinaryIO) -> None:
        """Our own pipe: asyncio's would keep `wait` waiting for whoever else holds it."""
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, printed)
        try:
            await captured(reader, self._name)
        finally:
            transport.close()

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                try:
                    self._sort(await frames.read_answer(reader))
                except frames.Unreadable as error:
                    self._reject(str(error))
                    self._settle(error.number, Raised(error=str(error)))
                if self._death.done():
                    return
        except Oversized as error:
            self._reject(str(error))
            self.fail(Unavailable(f"it sent {error}"))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.fail(Unavailable(await self._how_it_ended()))

    def _sort(self, heard: FromChild) -> None:
        if isinstance(heard, Emitted):
            try:
                self.emitted.put_nowait(heard)
            except asyncio.QueueFull:
                self._shed()
                self._reject(f"more than {WINDOW} messages at once")
            return
        if not self._settle(heard.number, heard):
            self._reject("an answer that nobody asked for")

    def _settle(self, number: int, answer: Answer) -> bool:
        future = self._asked.get(number)
        if future is None or future.done():
            return False
        future.set_result(answer)
        return True

    async def _how_it_ended(self) -> str:
        assert self._process is not None
        try:
            async with asyncio.timeout(LAST_WORDS):
                code = await self._process.wait()
        except TimeoutError:
            return "it closed its connection and was ended"
        if code < 0:
            return f"it was killed by {signal.Signals(-code).name}"
        return f"it exited with code {code}"


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reads, writes = os.pipe()
    return open(reads, "rb", 0), open(writes, "wb", 0)


def _environment(home: str, shown: list[str]) -> dict[str, str]:
    """Nothing of the daemon's but what every program needs: no tokens, no passwords."""
    given = {name: os.environ[name] for name in (*SHOWN, *shown) if name in os.environ}
    return {
        **given,
        "HOME": home,
        "TMPDIR": home,
        "PYTHONPATH": os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",  # each reserves 64 MiB of the address space that is limited
    }
