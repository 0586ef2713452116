"""The daemon's door for people and programs: one HTTP server on loopback, inside the daemon's loop, until it is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvicorn

from runtime.config import HttpConfig
from runtime.console import border, events, routes
from runtime.errors import BadConfig, Unavailable
from runtime.metrics import Metrics

if TYPE_CHECKING:
    from runtime.control import Control

PORT_FILE = "http.port"
CONNECTIONS = 128  # at most, open ones
GRACE = 3  # seconds that answers under way get at the end

log = structlog.get_logger("console")


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the daemon has its own and says when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(control: Control, http: HttpConfig, data: Path, metrics: Metrics) -> None:
    """Serve until cancelled; then end the streams, let answers under way finish, and close the port."""
    with _listening(http) as listener, _announced(listener, data) as port:
        secret = border.token(data)
        streams = events.Streams()
        app = border.Border(routes.application(control, metrics, streams), secret=secret, port=port)
        server = _Server(_settings(app))
        running = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        _log_address(http.host, port, secret)
        try:
            await asyncio.shield(running)
        finally:
            streams.close()
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await running


def _settings(app: border.Border) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )


@contextlib.contextmanager
def _listening(http: HttpConfig) -> Iterator[socket.socket]:
    address = _loopback(http.host)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((str(address), http.port))
        except OSError as error:
            raise Unavailable(_why_not(error, http)) from None
        listener.listen(CONNECTIONS)
        listener.setblocking(False)
        yield listener


def _loopback(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise BadConfig(f"[http] host: {host!r} is not an address; write 127.0.0.1") from None
    if not address.is_loopback:
        raise BadConfig(f"[http] host: {host} can be reached from outside; only 127.0.0.1 or ::1 is accepted")
    return address


def _why_not(error: OSError, http: HttpConfig) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {http.port} on {http.host} is in use, perhaps by another daemon; stop it or set another [http] port (0 = any free one)"
    return f"cannot listen on {http.host} port {http.port}: {error.strerror}; set another [http] port"


@contextlib.contextmanager
def _announced(listener: socket.socket, data: Path) -> Iterator[int]:
    """Write the real port where the command line looks for it, and take it back at the end."""
    port: int = listener.getsockname()[1]
    path = data / PORT_FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(f"{port}\n", encoding="ascii")
    os.replace(fresh, path)
    try:
        yield port
    finally:
        path.unlink(missing_ok=True)


def _log_address(host: str, port: int, secret: str) -> None:
    """The link with the token goes to a person's terminal only, never into a log file."""
    shown = f"[{host}]" if ":" in host else host
    log.info("console", page=f"http://{shown}:{port}/" + (f"#{secret}" if sys.stderr.isatty() else ""))
