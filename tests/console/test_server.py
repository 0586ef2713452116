"""The console's server: the port, the token, the border, the streams, and a stop that is clean."""

from __future__ import annotations

import asyncio
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import httpx
import pytest

from runtime.config import HttpConfig
from runtime.console import border, server
from runtime.errors import BadConfig, Unavailable
from runtime.messages import Cycle, Outcome
from runtime.metrics import Metrics
from tests.console.conftest import Remembered, Running, decision

if TYPE_CHECKING:
    from runtime.control import Control


async def test_health_needs_no_token(console: Running) -> None:
    async with httpx.AsyncClient(base_url=console.url, trust_env=False) as client:
        assert (await client.get("/healthz")).json() == {"ok": True}
        assert (await client.get("/readyz")).status_code == 200
        figures = await client.get("/metrics")
    assert "corrigible_observations_total 0.0" in figures.text
    assert figures.headers["content-type"].startswith("text/plain; version=0.0.4")


async def test_readyz_says_which_part_is_missing(console: Running) -> None:
    console.control.ready["policy"] = False
    async with console.client() as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"]["policy"] is False


@pytest.mark.parametrize("path", ["/api/status", "/api/decisions/d-1", "/events", "/api/nothing-here"])
async def test_data_needs_the_token(console: Running, path: str) -> None:
    async with httpx.AsyncClient(base_url=console.url, trust_env=False) as client:
        assert (await client.get(path)).status_code == 401
        assert (await client.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401
        assert (await client.get(path, headers={"Authorization": f"Basic {console.token}"})).status_code == 401


async def test_foreign_host_is_refused_even_for_the_page(console: Running) -> None:
    async with console.client(Host=f"evil.example:{console.port}") as client:
        assert (await client.get("/")).status_code == 421
        assert (await client.get("/api/status")).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"])
async def test_foreign_origin_is_refused(console: Running, origin: str) -> None:
    async with console.client(Origin=origin) as client:
        answer = await client.post("/api/kill", json={"on": True})
    assert answer.status_code == 403
    assert console.control.calls == []


async def test_own_origin_is_accepted(console: Running) -> None:
    async with console.client(Origin=console.url) as client:
        assert (await client.post("/api/kill", json={"on": True})).json() == {"kill": True}


async def test_every_answer_carries_the_browsers_rules(console: Running) -> None:
    async with console.client() as client:
        for path in ("/", "/api/status", "/nowhere"):
            headers = (await client.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"


def test_token_is_kept_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = border.token(tmp_path)
    path = tmp_path / border.TOKEN_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert border.token(tmp_path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(first) >= 40


def test_empty_token_file_is_replaced(tmp_path: Path) -> None:
    """A crash between making and writing the file must not leave a console that everybody may use."""
    (tmp_path / border.TOKEN_FILE).write_text("")
    assert len(border.token(tmp_path)) >= 40


async def test_port_in_use_is_one_sentence(console: Running, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(Unavailable, match=r"in use.*\[http\] port"):
        await server.serve(cast("Control", Remembered()), HttpConfig(port=console.port), other, Metrics())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "example.org"])
async def test_only_loopback_is_served(host: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"127\.0\.0\.1"):
        await server.serve(cast("Control", Remembered()), HttpConfig(host=host, port=0), tmp_path, Metrics())


async def test_stream_tells_what_happens(console: Running) -> None:
    async with console.client() as client, client.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        assert await _next_event(lines) == "hello"
        await console.control.bus.publish(decision("d-7"))
        assert await _next_event(lines) == "decision"
        assert '"id":"d-7"' in await anext(lines)
        await console.control.bus.publish(Outcome(id="o", decision_id="d-7", command_id=None, status="applied", at=1.0))
        assert await _next_event(lines) == "outcome"
        await console.control.bus.publish(Cycle(id="c", state="running", started_at=1.0, progress=0.5))
        assert await _next_event(lines) == "cycle"
        assert '"progress":0.5' in await anext(lines)


async def test_stop_ends_the_streams_and_frees_the_port(console: Running) -> None:
    async with console.client() as client, client.stream("GET", "/events") as stream:
        lines = stream.aiter_lines()
        assert await _next_event(lines) == "hello"
        console.task.cancel()
        assert [line async for line in lines if line.startswith("event:")] == []
    with suppress(asyncio.CancelledError):
        await console.task
    assert not (console.data / server.PORT_FILE).exists()
    with pytest.raises(httpx.ConnectError):
        async with console.client() as client:
            await client.get("/healthz")


async def _next_event(lines: object) -> str:
    async for line in lines:  # type: ignore[attr-defined]
        if line.startswith("event:"):
            return str(line.removeprefix("event:").strip())
    raise AssertionError("the stream ended")
