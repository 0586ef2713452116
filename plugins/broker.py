"""Which broker the loop talks over: your own, a mosquitto that we start with a durable configuration, or the embedded one.

A broker of ours listens on loopback only and is started again when it dies. mosquitto keeps sessions and queued messages
on disk, written just after it acknowledged them, so kill -9 can cost the newest; the embedded broker (rumqttd in the
iotcore wheel) keeps them in memory and loses all. Producers send again until the agent itself has acknowledged. `python -m plugins.broker FILE` is the embedded broker's process.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Literal

import structlog

from plugins.broker_files import LOOPBACK, embedded_config, mosquitto_config, password_line, write
from runtime.config import BrokerConfig
from runtime.errors import BadConfig, Unavailable

READY = 15.0  # seconds a broker has to start listening
PROBE = 5.0  # seconds between looks at a broker that is not ours
BACKOFF = (0.1, 10.0)  # seconds before it is started again, first and longest
SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))  # not on every user's PATH

Kind = Literal["configured", "mosquitto", "embedded"]
log = structlog.get_logger("broker")


class Broker:
    """A broker that answers. `config` has its real host and port; `run` keeps it alive."""

    def __init__(self, kind: Kind, config: BrokerConfig, data: Path) -> None:
        self.kind = kind
        self.config = config
        self.healthy = False
        self.restarts = 0
        self._folder = (data / "broker").absolute()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def run(self) -> None:
        """Watch it for ever: start ours again when it dies, look after a foreign one."""
        wait = BACKOFF[0]
        while True:
            if self._process is None and self.kind == "configured":
                self.healthy = await _listens(self.config)
                await asyncio.sleep(PROBE)
                continue
            if self._process is not None:
                code = await self._process.wait()
                log.warning("the broker died, starting it again", kind=self.kind, code=code, seconds=wait)
            self.healthy = False
            await asyncio.sleep(wait)
            try:
                await self.launch()
            except Unavailable as error:
                log.error("the broker does not start", kind=self.kind, error=str(error))
                wait = min(wait * 2, BACKOFF[1])
            else:
                self.restarts += 1
                wait = BACKOFF[0]

    async def launch(self) -> None:
        """Start our process and wait until it listens."""
        await asyncio.to_thread(_end_leftover, self._folder)
        _check_port(self.config)
        with (self._folder / "broker.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=subprocess.PIPE, stdout=output, stderr=output,
                start_new_session=True,  # Ctrl-C is for the daemon, which stops the broker last
            )  # fmt: skip
        (self._folder / "pid").write_text(str(self._process.pid))
        await self._ready(self._process)
        self.healthy = True

    def _command(self) -> list[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self.kind == "embedded":
            path = write(self._folder / "embedded.toml", embedded_config(self.config))
            return [sys.executable, "-m", "plugins.broker", str(path)]
        if self.config.username:
            write(self._folder / "passwords", password_line(self.config))
        path = write(self._folder / "mosquitto.conf", mosquitto_config(self.config, self._folder))
        return [installed_mosquitto() or "mosquitto", "-c", str(path)]

    async def _ready(self, process: asyncio.subprocess.Process) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(READY):
                while process.returncode is None:
                    if await _listens(self.config):
                        return
                    await asyncio.sleep(0.02)
        await self._end()
        tail = (self._folder / "broker.log").read_text(errors="replace").strip().splitlines()[-1:]
        raise Unavailable(
            f"the {self.kind} broker did not start: {' '.join(tail) or 'it said nothing'}; see {self._folder}/broker.log"
        )

    async def stop(self) -> None:
        """Ask it to end, so that mosquitto writes its sessions; a foreign broker is left alone."""
        self.healthy = False
        await self._end()
        (self._folder / "pid").unlink(missing_ok=True)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(5.0):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def start(config: BrokerConfig, data: Path) -> Broker:
    """Choose and, if it is to be ours, start it. Raises BadConfig or Unavailable in one sentence."""
    kind = choose(config)
    if kind == "configured":
        broker = Broker(kind, config, data)
        broker.healthy = await _listens(config)
        if not broker.healthy:
            log.warning("the broker does not answer yet; trying on", host=config.host, port=config.port)
        return broker
    (data / "broker").mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(_end_leftover, (data / "broker").absolute())
    port = await _port(config)
    broker = Broker(kind, config.model_copy(update={"mode": kind, "host": LOOPBACK, "port": port, "tls": False}), data)
    await broker.launch()
    log.info("broker started", kind=kind, port=broker.config.port, pid=broker.pid)
    return broker


def choose(config: BrokerConfig) -> Kind:
    """The kind that `[broker] mode` asks for, or in `auto` the first that is possible."""
    if config.mode == "none":
        raise BadConfig("[broker] mode = 'none' wants no broker")
    if config.mode == "configured" and not config.host:
        raise BadConfig(
            "[broker] mode = 'configured' needs a host; write host = \"broker.example\" or choose another mode"
        )
    if config.mode == "mosquitto" and installed_mosquitto() is None:
        raise Unavailable(
            "[broker] mode = 'mosquitto', but no mosquitto is on PATH; install it or choose mode = 'embedded'"
        )
    if config.mode == "configured" or (config.mode == "auto" and config.host):
        return "configured"
    if config.mode == "mosquitto" or (config.mode == "auto" and installed_mosquitto() is not None):
        return "mosquitto"
    return "embedded"


def installed_mosquitto() -> str | None:
    """Where it is, None if it is not installed."""
    return shutil.which("mosquitto", path=SEARCH)


async def _port(config: BrokerConfig) -> int:
    """The port of a broker of ours. In `auto` another one if somebody else has it, such as a mosquitto service."""
    port = config.port or _free_port()
    if config.mode != "auto":
        return port
    for _ in range(20):  # what a killed daemon left behind may take a moment to let go
        if not _taken(port):
            return port
        await asyncio.sleep(0.1)
    ours = _free_port()
    log.warning("port is taken; our broker listens on another", port=port, ours=ours, hint=_hint())
    return ours


def _taken(port: int) -> bool:
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return True
    return False


def _hint() -> str:
    return f'set another [broker] port, or host = "{LOOPBACK}" to use the broker that is there'


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as probe:
        return int(probe.getsockname()[1])


def _check_port(config: BrokerConfig) -> None:
    if _taken(config.port):
        raise Unavailable(f"cannot start a broker on port {config.port}: it is in use; {_hint()}")


async def _listens(config: BrokerConfig) -> bool:
    try:
        async with asyncio.timeout(2.0):
            _, writer = await asyncio.open_connection(config.host, config.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _end_leftover(folder: Path) -> None:
    """End the broker that a killed daemon left behind; its port and its files are ours."""
    note = folder / "pid"
    try:
        pid = int(note.read_text())
    except (OSError, ValueError):
        return
    note.unlink(missing_ok=True)
    for _ in range(250):
        found = subprocess.run(
            ["ps", "-ww", "-o", "stat=", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        state, _, arguments = found.stdout.strip().partition(" ")
        if str(folder) not in arguments or state.startswith("Z"):
            return  # gone, or the number belongs to somebody else now
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        threading.Event().wait(0.02)


def _end_with_parent() -> None:
    """The daemon holds our stdin open; when it is gone, so are we."""
    with suppress(OSError):
        sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    from iotcore.iotcore import IotCoreBroker

    threading.Thread(target=_end_with_parent, daemon=True).start()
    IotCoreBroker(config_path=sys.argv[1]).run_forever()


if __name__ == "__main__":
    main()
