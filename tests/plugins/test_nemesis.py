"""Daemon, policy worker and broker killed while a producer sends: nothing it was told is safe is missing afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

from plugins.house import demo
from plugins.house.nemesis import Nemesis
from plugins.house.processes import Daemon, free_port
from plugins.mqtt_actor import Actor
from runtime.journal import doctor

PATIENCE = 180.0  # seconds after which a hanging test fails
TOPIC = "home/kitchen/light"


async def test_nothing_acknowledged_is_lost_over_kills(tmp_path: Path) -> None:
    port, config, data = free_port(), tmp_path / "config.toml", tmp_path / "data"
    data.mkdir()
    config.write_text(demo.settings(port, data), encoding="utf-8")
    daemon = Daemon(config, data)
    actor = Actor("127.0.0.1", port, producer="lamp", agent=demo.AGENT, topics=())
    nemesis = Nemesis(daemon, {"daemon": 1, "policy": 1, "broker": 1}, seed=0, tell=print, pause=(0.1, 0.5))
    safe: set[str] = set()
    async with asyncio.timeout(PATIENCE), daemon.running(), actor.connected():
        killing = asyncio.create_task(nemesis.run())
        while not killing.done():
            safe.add(f"{TOPIC}:{await actor.send(TOPIC, 3 if len(safe) // 50 % 2 else 300)}")
        await daemon.ready()
        safe.add(f"{TOPIC}:{await actor.send(TOPIC, 3)}")
    assert not any(nemesis.left.values())  # a kill counts only where the process was there to be killed
    assert daemon.starts == 2
    assert doctor.missing(data / "journal.db", safe) == []
    assert doctor.missing(data / "journal.db", {"never sent"}) == ["never sent"]
    assert [finding for finding in doctor.examine(data / "journal.db") if finding.state == "broken"] == []
