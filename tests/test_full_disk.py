"""A disk that takes nothing for a while: the daemon waits, with all its parts, and loses nothing of what comes meanwhile."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.journal import doctor
from runtime.messages import Observation
from runtime.roles import Emit, Sensor
from tests.test_safe_mode import PATIENCE, Daemon, named, until

SMALL = 4096  # bytes a file may have meanwhile
MORE = 20  # observations


@dataclass(kw_only=True)
class Counting(Sensor):
    """Says one number after the other, each once the one before was taken."""

    name: str = "counting"

    async def sense(self, emit: Emit) -> None:
        number = 0
        while True:
            number += 1
            await emit(
                Observation(
                    id=f"n{number}",
                    topic="home/hall/number",
                    payload=str(number).encode(),
                    at=time.time(),
                    source=self.name,
                )
            )
            await asyncio.sleep(0.01)


async def test_all_parts_wait_and_go_on(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    config = daemon.config.read_text().split("[[plugin]]")[0]
    daemon.config.write_text(config + '[[plugin]]\nuse = "tests.test_full_disk:Counting"\nisolate = false\n')
    process = await daemon.start()
    try:
        async with asyncio.timeout(PATIENCE):
            seen = await daemon.status(lambda found: counted(found) > MORE and names(found) == ["NORMAL"])
            soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (SMALL, hard))
            degraded = await daemon.status(named("DEGRADED"))
            assert any("journal" in cause for cause in degraded["causes"]), degraded["causes"]
            await until(lambda: b'"now": "DEGRADED"' in (tmp_path / "daemon.log").read_bytes())  # it was noticed
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))
            after = await daemon.status(
                lambda found: (
                    names(found) == ["NORMAL", "DEGRADED", "NORMAL"] and counted(found) > counted(degraded) + MORE
                )
            )
            assert counted(seen) < counted(after)
            (plugin,) = after["plugins"]
            assert (plugin["state"], plugin["restarts"]) == ("running", 0)
            process.terminate()
            assert await process.wait() == 0
    finally:
        daemon.close()
        if process.returncode is None:
            process.kill()
            await process.wait()
    journal = daemon.data / "journal.db"
    assert [finding for finding in doctor.examine(journal) if finding.state == "broken"] == []
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as base:
        numbers = [int(payload) for (payload,) in base.execute("SELECT payload FROM observation ORDER BY seq")]
        assert numbers == list(range(1, len(numbers) + 1)), "something is missing"
        assert base.execute("SELECT count(*) FROM observation WHERE perceived = 0").fetchone() == (0,)


def counted(status: dict[str, Any]) -> int:
    return int(status["counts"]["observation"])


def names(status: dict[str, Any]) -> list[str]:
    """How it stood, newest first."""
    return [row["condition"] for row in status["transitions"]]
