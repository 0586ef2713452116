"""The scene: the daemon's configuration, the daemon kept alive as a service manager would, the events and the envelope."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.chaos import school
from tests.chaos.checker import Envelope
from tests.chaos.clock import VARIABLE, Clock
from tests.chaos.history import Sent

ROOT = Path(__file__).parents[2]
AGENT = "chaos"
ROOMS = ("kitchen", "hall", "attic", "cellar")
EXPIRY = 4.0  # seconds a command lives
PRODUCERS = 4
WAKING = 0.1  # share of the events that wake a decision
BROKEN = 0.02  # share of the events that nobody can read
HOT = 26  # what a heater could be told, and the guard forbids
BACK = 0.05  # seconds the service manager waits before it starts the daemon again
STOP = 40.0  # seconds from SIGTERM to the end

CONFIG = """
[agent]
name = "{agent}"
data = "{data}"
timezone = "UTC"
[log]
format = "json"
[http]
port = 0
[broker]
mode = "configured"
host = "127.0.0.1"
port = {port}
[policy]
model = "{model}"
dtype = "float32"
memory = false
table = false
ask = "never"
{learning}
[journal]
backup_every = 0
[supervision]
crashes = 1000000
[guard]
rate = 1000000
budget = 1000000
expiry = {expiry}
{ranges}
[modes]
"*" = "act"
[[plugin]]
use = "plugins.mqtt:Mqtt"
sensors = ["home/+/+"]
"""
DEVICE = """
[[plugin.actuators]]
name = "{room}_heater"
scope = "{room}"
topic = "act/{room}_heater/set"
minimum = 10
maximum = 30
step = 1
confirm = "ack"
[[plugin.actuators]]
name = "{room}_bell"
scope = "{room}"
topic = "act/{room}_bell/set"
values = ["ring", "chime", "knock", "buzz", "gong", "horn"]
confirm = "ack"
once = true
"""


def write_config(folder: Path, port: int, model: Path | None = None) -> Path:
    """`config.toml` for a daemon that reaches the broker at `port`; with a model it learns, too."""
    ranges = "\n".join(["[guard.ranges]", *(f'"{room}_heater.level" = [10, {HOT - 1}]' for room in ROOMS)])
    learning = school.LESSONS if model else school.NOTHING
    text = CONFIG.format(
        agent=AGENT, data=folder / "data", port=port, expiry=EXPIRY, ranges=ranges, model=model or "smollm2",
        learning=learning.strip(),
    )  # fmt: skip
    path = folder / "config.toml"
    path.write_text(text + "".join(DEVICE.format(room=room) for room in ROOMS))
    return path


def envelope() -> Envelope:
    inside = frozenset(str(value) for value in range(10, HOT))
    bells = frozenset(("ring", "chime", "knock", "buzz", "gong", "horn"))
    return Envelope(
        values={name: told for room in ROOMS for name, told in ((f"{room}_heater", inside), (f"{room}_bell", bells))},
        lives=EXPIRY,
    )


def events(seed: int, waking: float = WAKING) -> Iterator[Sent]:
    """What the producers have to say, without end; the same for the same seed."""
    drawn = random.Random(f"events {seed}")
    for number in itertools.count():
        id, producer = f"e{number}", f"producer{number % PRODUCERS}"
        room, kind = drawn.choice(ROOMS), drawn.random()
        topic = f"home/{room}/mood" if kind < waking else f"home/meter/{room}"
        valid = not kind > 1 - BROKEN
        value = f'"m{number}"' if valid else "NaN"
        payload = f'{{"value": {value}, "id": "{id}"}}'.encode()
        yield Sent(id=id, producer=producer, topic=topic, payload=payload, valid=valid, at=time.time())


KEPT = ("home/hall/says", b'{"text": "it was dark yesterday"}')  # what the broker retains since yesterday


class Daemon:
    """`corrigible run`, started again whenever it dies. `command` may name a mutant."""

    def __init__(
        self, config: Path, *, mutant: str = "", clock: Clock | None = None, prefix: tuple[str, ...] = ()
    ) -> None:
        self._command = (*prefix, sys.executable, "-m", "tests.chaos.daemon", *(("--mutant", mutant) if mutant else ()))
        self._config = config
        self._clock = clock  # if it may jump
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._listeners: set[asyncio.Task[None]] = set()
        self.data = config.parent / "data"
        self.log = config.parent / "daemon.log"
        self.starts = 0
        self.exits: list[int] = []

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Daemon]:
        keeper = asyncio.create_task(self._keep(), name="chaos daemon")
        try:
            yield self
        finally:
            await self.stop()
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def start_another(self) -> asyncio.subprocess.Process:
        """One more on the same data, as by mistake."""
        return await self._start()

    async def stop(self) -> int | None:
        """SIGTERM, and SIGKILL if that is not heard; its exit code."""
        self._stopping = True
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP):
                    await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        return process.returncode

    async def _keep(self) -> None:
        while not self._stopping:
            self._process = await self._start()
            self.starts += 1
            self.exits.append(await self._process.wait())
            await asyncio.sleep(BACK)

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *self._command, "run", "--config", str(self._config), cwd=ROOT, env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        listener = asyncio.create_task(self._write_down(process.stdout))
        self._listeners.add(listener)
        listener.add_done_callback(self._listeners.discard)
        return process

    async def _write_down(self, output: asyncio.StreamReader) -> None:
        """Through a pipe, so that the daemon can still say that its disk is full."""
        with self.log.open("ab") as file:
            while some := await output.read(1 << 16):
                file.write(some)
                file.flush()

    def _environment(self) -> dict[str, str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        if self._clock is not None:
            env[VARIABLE] = str(self._clock.file)
        return env
