"""The whole daemon as a process, with the real model and a real broker: corrected once over MQTT, it stays corrected,
also after `kill -9`; it stops cleanly; what it did is in a journal without a broken invariant."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from plugins.house.processes import free_port
from plugins.mqtt_actor import Actor, Heard
from runtime.journal import Journal, doctor
from runtime.messages import derived_id

PATIENCE = 120.0  # seconds after which a hanging test fails
CONFIG = """
[agent]
name = "test"
data = "{data}"
timezone = "UTC"

[http]
port = 0

[broker]
mode = "embedded"
port = {port}

[modes]
"kitchen_lamp" = "act"

[learner]
enabled = false

[[plugin]]
use = "plugins.mqtt:Mqtt"
sensors = ["home/+", "home/+/+"]

[[plugin.actuators]]
name = "kitchen_lamp"
scope = "kitchen"
topic = "home/kitchen/lamp/set"
values = ["off", "dim", "bright"]
state_topic = "home/kitchen/lamp"

[[plugin.actuators]]
name = "kitchen_fan"
scope = "kitchen"
topic = "home/kitchen/fan/set"
values = ["off", "high"]
"""


@asynccontextmanager
async def running(config: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    log = (config.parent / "daemon.log").open("ab")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runtime", "run", "--config", str(config), stdout=log, stderr=log
    )  # fmt: skip
    try:
        yield process
    finally:
        log.close()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


class Kitchen:
    """A room on MQTT and the person in it."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._commands: set[str] = set()

    async def becomes(self, lux: float) -> dict[str, Any]:
        """The light changes; the decision on it."""
        await self._actor.send("home/house/clock", "2026-11-23T20:00")
        await self._actor.send("home/kitchen", {"light": lux, "presence": True})
        return await self.hears("/decision/kitchen")

    async def hears(self, ending: str) -> dict[str, Any]:
        while True:
            heard = await self._listen()
            if heard.topic.endswith(ending):
                return {"topic": heard.topic, **json.loads(heard.payload)}

    async def is_told(self, decision: dict[str, Any]) -> None:
        """The lamp hears the command of this decision, not one of before."""
        command = derived_id("cm", decision["percept"], "kitchen_lamp", "0")
        while command not in self._commands:
            await self._listen()

    async def _listen(self) -> Heard:
        heard = await self._actor.hear()
        self._commands.add(heard.properties.get("cmd_id", ""))
        return heard

    async def corrects(self, decision: dict[str, Any], action: str) -> None:
        body = {"id": f"say-{decision['id']}", "decision": decision["id"], "correct": action}
        await self._actor.send("corrigible/test/feedback", body)


async def test_corrected_once_it_stays_corrected_over_a_kill(tmp_path: Path) -> None:
    port, config, data = free_port(), tmp_path / "config.toml", tmp_path / "data"
    config.write_text(CONFIG.format(data=data, port=port))
    actor = Actor(
        "127.0.0.1", port, producer="room", agent="test",
        topics=("corrigible/test/decision/#", "corrigible/test/feedback/response", "home/kitchen/+/set"),
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE), running(config) as daemon, actor.connected():
        room = Kitchen(actor)
        first = await room.becomes(2)
        assert first["by"] == "model"
        await room.corrects(first, "kitchen_lamp dim")
        await room.becomes(800)
        again = await room.becomes(3)
        assert (again["by"], again["action"]) == ("table", "kitchen_lamp dim")
        await room.is_told(again)  # mode `act`: the command goes out
        daemon.send_signal(signal.SIGKILL)
        await daemon.wait()
        async with running(config) as second:
            await room.becomes(900)
            again = await room.becomes(4)
            assert (again["by"], again["action"]) == ("table", "kitchen_lamp dim")
            await room.is_told(again)
            second.send_signal(signal.SIGTERM)
            shown = asyncio.create_task(actor.send("home/kitchen/lamp", "dim"))  # the lamp does it while we stop
            assert await second.wait() == 0
            told = shown.result() if shown.done() else ""  # it came before the door was closed, or after
            shown.cancel()
    async with Journal.open(data / "journal.db") as journal:
        assert [o.status for o in await journal.outcomes_of(again["id"])] == ["applied"]
        rows = (*await journal.last_observations(), *await journal.unperceived())
        newest = {observation.id for observation in rows}
        assert not told or f"home/kitchen/lamp:{told}" in newest, "acknowledged, and not there"
    assert [finding for finding in doctor.examine(data / "journal.db") if finding.state == "broken"] == []
    assert "Traceback" not in (tmp_path / "daemon.log").read_text()


async def test_a_wrong_key_is_one_sentence_and_no_daemon(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[learner]\nepoch = 3\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "runtime", "run", "--config", str(config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert "did you mean 'epochs'?" in errors.decode().replace("\n", " ")
    assert "Traceback" not in errors.decode()
