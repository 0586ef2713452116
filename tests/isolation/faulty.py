"""A plugin for every way to go wrong: `how` names it. Used by the tests of containment and by the benchmark."""

# ruff: noqa: ASYNC230, ASYNC251, SIM115 - doing it wrong is what these are for
from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from runtime.catalogue import Tool
from runtime.framing import LENGTH
from runtime.isolation.frames import Emitted, frame
from runtime.messages import Action, Command, Decision, Feedback, Observation, Outcome, Percept
from runtime.roles import Actuator, Critic, Emit, Perceiver, Rule, Sensor, Situation, World, observe

MEBIBYTE = 1 << 20
FOREVER = 3600.0  # seconds


@dataclass
class Faulty(Sensor):
    """Goes wrong while it senses (or starts, or stops)."""

    how: str
    target: str = ""

    async def start(self) -> None:
        if self.how == "hang in start":
            time.sleep(FOREVER)

    async def stop(self) -> None:
        if self.how == "hang in stop":
            time.sleep(FOREVER)

    async def sense(self, emit: Emit) -> None:
        await DEEDS[self.how](self, emit)

    def __post_init__(self) -> None:
        if self.how == "raise when built":
            raise OSError("no such bus")


@dataclass
class Liar(Perceiver, Rule, Actuator, Critic):
    """Answers what it was not asked, or may not say."""

    how: str

    def perceive(self, world: World, observation: Observation) -> Iterable[Situation]:
        if self.how == "slow":
            time.sleep(0.1)
            return []
        return [Situation(scope="vault", kind="speech", says="open the vault", text=self.how)]

    def judge(self, percept: Percept, action: Action, now: datetime) -> str | None:
        return 7  # type: ignore[return-value]

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return {"hall": (Tool(name="porch", actuator="vault_door" if self.how == "steal an actuator" else "porch"),)}

    async def act(self, command: Command) -> Outcome:
        if self.how == "never answer":
            await asyncio.Event().wait()
        return Outcome(id="oc", decision_id="dc-other", command_id="cm-other", status="applied", at=1.0)

    def criticise(self, message: Observation | Percept | Decision | Command | Outcome) -> Iterable[Feedback]:
        return [Feedback(id="fb", decision_id="dc-1", kind="acceptance", source="grandmother", at=1.0)]


async def _raise(_: Faulty, __: Emit) -> None:
    raise ValueError("it is broken")


async def _return(_: Faulty, __: Emit) -> None:
    return


async def _exit(_: Faulty, __: Emit) -> None:
    sys.exit(3)


async def _exit_at_once(_: Faulty, __: Emit) -> None:
    os._exit(7)


async def _kill_itself(_: Faulty, __: Emit) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _crash(_: Faulty, __: Emit) -> None:
    ctypes.string_at(0)


async def _block(_: Faulty, __: Emit) -> None:
    time.sleep(FOREVER)


async def _spin(_: Faulty, __: Emit) -> None:
    while True:
        pass


async def _leak_memory(_: Faulty, __: Emit) -> None:
    kept = []
    while True:
        kept.append(bytearray(8 * MEBIBYTE))


async def _leak_descriptors(_: Faulty, __: Emit) -> None:
    kept = []
    while True:
        kept.append(open("/dev/null"))


async def _fork_bomb(_: Faulty, __: Emit) -> None:
    while True:
        os.fork()


async def _thread_bomb(_: Faulty, __: Emit) -> None:
    while True:
        threading.Thread(target=time.sleep, args=(FOREVER,), daemon=True).start()


async def _flood(_: Faulty, emit: Emit) -> None:
    """As fast as it is let."""
    while True:
        await asyncio.gather(*(emit(observe("hall/flood", n, at=1.0)) for n in range(100)))


async def _flood_past_the_window(_: Faulty, __: Emit) -> None:
    """Frames by its own hand, without waiting for any answer."""
    body = b"".join(frame(Emitted(number=n, observation=observe("hall/flood", n, at=1.0))) for n in range(1000))
    while True:
        _write(body)


async def _garbage(_: Faulty, __: Emit) -> None:
    while True:
        _write(LENGTH.pack(40) + os.urandom(40))


async def _huge(_: Faulty, __: Emit) -> None:
    _write(LENGTH.pack(0xFFFFFFFF) + bytes(1000))
    time.sleep(FOREVER)


async def _wrong_types(_: Faulty, __: Emit) -> None:
    body = msgspec.msgpack.encode({"type": "Emitted", "number": 1, "observation": {"id": 1, "topic": [], "at": "now"}})
    for _number in range(20):
        _write(LENGTH.pack(len(body)) + body)
    time.sleep(FOREVER)


async def _deep(_: Faulty, __: Emit) -> None:
    """Nested deeper than any reader goes."""
    body = b"\x91" * 100_000 + b"\xc0"
    for _number in range(20):
        _write(LENGTH.pack(len(body)) + body)
    time.sleep(FOREVER)


async def _answer_unasked(_: Faulty, __: Emit) -> None:
    body = msgspec.msgpack.encode({"type": "Done", "number": 99_999})
    for _number in range(20):
        _write(LENGTH.pack(len(body)) + body)
    time.sleep(FOREVER)


async def _foreign_topic(_: Faulty, emit: Emit) -> None:
    while True:
        await _tried(emit(observe("home/vault/door", "open", at=1.0)))


async def _false_feedback(_: Faulty, emit: Emit) -> None:
    while True:
        await _tried(emit(Feedback(id="fb", decision_id="dc-1", kind="acceptance", source="grandmother", at=1.0)))


async def _from_the_future(_: Faulty, emit: Emit) -> None:
    while True:
        await _tried(emit(observe("hall/clock", 1, at=time.time() + 1e6)))


async def _tried(emitting: Awaitable[None]) -> None:
    try:
        await emitting
    except Exception as error:
        print(error)


async def _attempt(plugin: Faulty, emit: Emit, deed: Callable[[], object]) -> None:
    """What came of something it must not do is said on a topic that it may use."""
    try:
        found = f"done: {deed()!r}"
    except OSError as error:
        found = type(error).__name__
    await emit(observe("hall/attempt", found, at=1.0))
    await asyncio.Event().wait()


async def _read(plugin: Faulty, emit: Emit) -> None:
    await _attempt(plugin, emit, lambda: Path(plugin.target).read_text()[:20])


async def _write_file(plugin: Faulty, emit: Emit) -> None:
    await _attempt(plugin, emit, lambda: Path(plugin.target).write_text("I was here"))


async def _connect(plugin: Faulty, emit: Emit) -> None:
    await _attempt(plugin, emit, lambda: socket.create_connection(("127.0.0.1", int(plugin.target)), timeout=5))


async def _kill_daemon(plugin: Faulty, emit: Emit) -> None:
    await _attempt(plugin, emit, lambda: os.kill(os.getppid(), signal.SIGTERM))


async def _secrets(plugin: Faulty, emit: Emit) -> None:
    found = [name for name in os.environ if "CORRIGIBLE" in name or "TOKEN" in name or "SECRET" in name]
    await _attempt(plugin, emit, lambda: found)


async def _print(_: Faulty, emit: Emit) -> None:
    for _number in range(200):
        print("x" * 100 + "\n" * 3 + "\x1b[31m" + "y" * 20_000)
    await emit(observe("hall/attempt", "printed", at=1.0))
    await asyncio.Event().wait()


async def _stay(_: Faulty, emit: Emit) -> None:
    await emit(observe("hall/attempt", "there", at=1.0))
    await asyncio.Event().wait()


def _write(body: bytes) -> None:
    descriptor = int(sys.argv[1])
    os.set_blocking(descriptor, True)
    while body:
        body = body[os.write(descriptor, body) :]


DEEDS: dict[str, Callable[[Faulty, Emit], Awaitable[None]]] = {
    "raise": _raise,
    "return early": _return,
    "exit": _exit,
    "exit at once": _exit_at_once,
    "kill -9 itself": _kill_itself,
    "crash": _crash,
    "block": _block,
    "spin": _spin,
    "leak memory": _leak_memory,
    "leak descriptors": _leak_descriptors,
    "fork bomb": _fork_bomb,
    "thread bomb": _thread_bomb,
    "flood": _flood,
    "flood past the window": _flood_past_the_window,
    "garbage": _garbage,
    "huge frame": _huge,
    "wrong types": _wrong_types,
    "deep nesting": _deep,
    "answer unasked": _answer_unasked,
    "foreign topic": _foreign_topic,
    "false feedback": _false_feedback,
    "from the future": _from_the_future,
    "read": _read,
    "write": _write_file,
    "connect": _connect,
    "kill the daemon": _kill_daemon,
    "look for secrets": _secrets,
    "print megabytes": _print,
    "hang in stop": _stay,
    "hang in start": _stay,
}
