"""The real daemon as a process: starts that are killed at once lead to safe mode, a person leads it out again, the kill switch is
HOLD, every change is in the journal, and a plugin's process dies with the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from runtime.boots import Boots
from runtime.config import SupervisionConfig
from runtime.journal import Journal

PATIENCE = 200.0  # seconds after which a hanging test fails
CONFIG = """
[agent]
name = "test"
data = "{data}"
timezone = "UTC"

[http]
port = 0

[broker]
mode = "none"


[[plugin]]
use = "tests.isolation.honest:Everything"
name = "stranger"
permissions = {{ emit = ["hall/*", "refused"], actuators = ["lamp"] }}
"""


class Daemon:
    """One process of it at a time, and what it says over HTTP."""

    def __init__(self, folder: Path) -> None:
        self.data, self.config = folder / "data", folder / "config.toml"
        self.config.write_text(CONFIG.format(data=self.data))
        self._log = (folder / "daemon.log").open("ab")

    async def start(self, *options: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "runtime", "run", "--config", str(self.config), *options,
            stdout=self._log, stderr=self._log,
        )  # fmt: skip

    async def status(self, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The status as soon as it is so."""
        while True:
            try:
                port = (self.data / "http.port").read_text().strip()
                async with httpx.AsyncClient(headers=self._token()) as client:
                    found: dict[str, Any] = (await client.get(f"http://127.0.0.1:{port}/api/status")).json()
                    if until(found):
                        return found
            except (OSError, httpx.HTTPError, json.JSONDecodeError):
                pass
            await asyncio.sleep(0.1)

    async def post(self, path: str, **body: Any) -> None:
        port = (self.data / "http.port").read_text().strip()
        async with httpx.AsyncClient(headers=self._token()) as client:
            (await client.post(f"http://127.0.0.1:{port}{path}", json=body)).raise_for_status()

    async def ready(self) -> tuple[int, dict[str, Any]]:
        port = (self.data / "http.port").read_text().strip()
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/readyz")
            return answer.status_code, answer.json()

    def _token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.data / 'control.token').read_text().strip()}"}

    def close(self) -> None:
        self._log.close()


def named(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda status: status.get("condition") == name


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - it happens in another process
        await asyncio.sleep(0.05)


async def test_starts_that_do_not_live_lead_to_safe_mode_and_a_person_out_of_it(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    boots = Boots(daemon.data / "boots.json", SupervisionConfig())
    try:
        async with asyncio.timeout(PATIENCE):
            for failed in (1, 2, 3):
                process = await daemon.start()
                await until(lambda counted=failed: boots.failed == counted)  # type: ignore[misc]
                process.kill()
                await process.wait()
            process = await daemon.start()
            status = await daemon.status(named("SAFE"))
            assert "did not live" in status["causes"][0]
            assert status["plugins"] == []
            assert status["processes"]["policy"] is None, "no model"
            code, body = await daemon.ready()
            assert (code, body["condition"]) == (200, "SAFE")

            await daemon.post("/api/kill", on=True)
            assert (await daemon.status(named("HOLD")))["causes"][0] == "the kill switch is on"
            await daemon.status(lambda found: found["transitions"][0]["condition"] == "HOLD")
            await daemon.post("/api/kill", on=False)
            await daemon.status(named("SAFE"))

            await daemon.post("/api/safe", on=False)
            status = await daemon.status(
                lambda found: found["condition"] == "NORMAL" and found["plugins"][0]["state"] == "running"
            )
            (plugin,) = status["plugins"]
            assert (plugin["name"], plugin["isolated"]) == ("stranger", True)
            assert process.returncode is None, "it is the same process"

            process.kill()
            await process.wait()
            await until(lambda: not Path(f"/proc/{plugin['pid']}").exists())

            process = await daemon.start("--safe")
            await daemon.status(named("SAFE"))
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
            assert boots.failed == 0
    finally:
        daemon.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
    async with Journal.open(daemon.data / "journal.db") as journal:
        seen = [row["condition"] for row in reversed(await journal.transitions(100))]
    assert seen[0] == "SAFE"
    assert {"SAFE", "HOLD", "NORMAL"} <= set(seen)
    assert "Traceback" not in (tmp_path / "daemon.log").read_text(), os.fspath(tmp_path)
