"""The demo's processes: the daemon and the home, each started as a person would start it, and asked from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec

from runtime.errors import CorrigibleError, Unavailable

START = 120.0  # seconds a daemon may take until it is ready
TRIES = 4  # starts after which a daemon that never came up is given up
POLL = 0.25  # seconds between two looks
STOP = 30.0  # seconds from SIGTERM to the end


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Daemon:
    """`corrigible run`, restarted when it dies, as a service manager would."""

    def __init__(self, config: Path, data: Path) -> None:
        self._config, self._data = config, data
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._came_up = False
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Daemon]:
        keeper = asyncio.create_task(self._keep(), name="demo: daemon")
        try:
            await self.ready()
            yield self
        finally:
            self._stopping = True
            await self._stop()
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self) -> None:
        while not self._stopping:
            with (self._data.parent / "daemon.log").open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "runtime", "run", "--config", str(self._config),
                    stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                )  # fmt: skip
            self.starts += 1
            await self._process.wait()
            await asyncio.sleep(POLL)

    async def _stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP):
                await self._process.wait()
        if self._process.returncode is None:
            self._process.kill()

    async def ready(self) -> None:
        """Wait until it serves. Raises Unavailable with its last words if it does not come up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START):
                while self._came_up or self.starts < TRIES or self.pid is not None:
                    with suppress(httpx.HTTPError, CorrigibleError):
                        status = await self.ask("GET", "/api/status")
                        if all(status["ready"].values()):
                            self._came_up = True
                            return
                    await asyncio.sleep(POLL)
        log = self._data.parent / "daemon.log"
        words = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        raise Unavailable(f"the daemon did not come up: {words[-1] if words else 'it said nothing'}")

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """One request to the control interface. Raises CorrigibleError with the daemon's own sentence."""
        try:
            port = (self._data / "http.port").read_text().strip()
            token = (self._data / "control.token").read_text().strip()
        except OSError:
            raise Unavailable("the daemon has not opened its interface yet") from None
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
            answer = await client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
        found = answer.json()
        if answer.is_error:
            raise CorrigibleError(found.get("error", answer.reason_phrase))
        return found


class Home:
    """`python -m plugins.simulated_home --controlled`: orders in, events out."""

    def __init__(self, port: int, agent: str, seed: int, count: int, heard: Callable[[dict[str, Any]], None]) -> None:
        self._arguments = [
            "--port",
            str(port),
            "--agent",
            agent,
            "--seed",
            str(seed),
            "--count",
            str(count),
            "--controlled",
        ]
        self._heard = heard
        self._process: asyncio.subprocess.Process | None = None
        self.position = 0

    @asynccontextmanager
    async def running(self, log: Path) -> AsyncIterator[Home]:
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "plugins.simulated_home", *self._arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=output, env={**os.environ},
            )  # fmt: skip
        try:
            await self._until("connected")
            yield self
        finally:
            with suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()

    async def order(self, **what: Any) -> list[dict[str, Any]]:
        """Give an order and wait until it is carried out; what happened meanwhile."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(what) + b"\n")
        await self._process.stdin.drain()
        events = await self._until("idle")
        self.position = int(events[-1]["position"])
        return events

    async def _until(self, name: str) -> list[dict[str, Any]]:
        assert self._process is not None
        assert self._process.stdout is not None
        events: list[dict[str, Any]] = []
        while line := await self._process.stdout.readline():
            event = msgspec.json.decode(line, type=dict[str, Any])
            events.append(event)
            self._heard(event)
            if event.get("event") == name:
                return events
        raise Unavailable("the simulated home ended before its time; see home.log")
