"""The dialogue this project began with, with the whole daemon: asked, corrected, right at once by the table, and after
one cycle right without it. Taken back, nothing is left of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from plugins.house.processes import Daemon

ASKED, RIGHT = "今天天气如何？", "今天天气晴朗，适合外出。"
OTHER, THIRD = "请看窗外。", "我不知道。"
PATIENCE = 200.0  # seconds after which a hanging test fails
CONFIG = """
[agent]
data = "{data}"
instruction = "You are a friendly assistant. Answer the person."

[http]
port = 0

[broker]
mode = "none"

[learner]
after = 0
every = 0

[[plugin]]
use = "chat"
"""


class Talk:
    """A daemon, and the log lines that it writes."""

    def __init__(self, daemon: Daemon, lines: asyncio.StreamReader) -> None:
        self.ask, self._lines = daemon.ask, lines

    async def until(self, event: str) -> None:
        """Wait until its log says this."""
        async for line in self._lines:
            if f'"event": "{event}"' in line.decode():
                return

    async def newest_cycle(self) -> dict[str, Any]:
        return dict((await self.ask("GET", "/api/cycles"))[0])


@asynccontextmanager
async def talking(folder: Path) -> AsyncIterator[Talk]:
    config, data = folder / "config.toml", folder / "data"
    data.mkdir()
    config.write_text(CONFIG.format(data=data), encoding="utf-8")
    os.mkfifo(folder / "daemon.log")  # so its lines are here as soon as they are written
    pipe = os.fdopen(os.open(folder / "daemon.log", os.O_RDWR | os.O_NONBLOCK), "rb", buffering=0)
    lines = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), pipe)
    with closing(transport):
        async with asyncio.timeout(PATIENCE), Daemon(config, data).running() as daemon:
            yield Talk(daemon, lines)


async def test_corrected_once_then_right_by_the_table_then_by_the_weights(tmp_path: Path) -> None:
    async with talking(tmp_path) as daemon:
        first = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (first["by"], first["reply"] == RIGHT) == ("model", False)
        correction = {"decision_id": first["id"], "kind": "correction", "action": RIGHT}
        await daemon.ask("POST", "/api/feedback", correction)

        at_once = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (at_once["by"], at_once["reply"]) == ("table", RIGHT)

        await daemon.ask("POST", "/api/learn", {})
        await daemon.until("cycle ended")
        assert (await daemon.newest_cycle())["state"] in ("released", "provisional")
        await daemon.ask("POST", "/api/table", {"on": False})
        learnt = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (learnt["by"], learnt["reply"]) == ("model", RIGHT)
        assert learnt["adapter"] != "base"

        taken_back = await daemon.ask("POST", "/api/forget", {"decision_id": first["id"]})
        assert (taken_back["forgotten"], taken_back["rebuilding"]) == (1, True)
        await daemon.until("proven")
        proof = (await daemon.newest_cycle())["report"]["unlearnt"]
        assert (proof["holds"], proof["serving"], proof["versions"], proof["removed"]) == (
            True, "base", 0, [learnt["adapter"]]
        )  # fmt: skip
        await daemon.ask("POST", "/api/table", {"on": True})
        unlearnt = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (unlearnt["adapter"], unlearnt["by"], unlearnt["reply"] == RIGHT) == ("base", "model", False)
        assert [one["id"] for one in await daemon.ask("GET", "/api/adapters")] == ["base"]


async def test_two_people_who_disagree_and_a_third_who_decides(tmp_path: Path) -> None:
    """Whoever corrected last is obeyed; the dispute is listed; after one word for Ana her answer stands."""
    async with talking(tmp_path) as daemon:
        decision = (await daemon.ask("POST", "/api/say", {"text": ASKED}))["id"]
        said = {}
        for who, right in (("Ana", RIGHT), ("Ben", OTHER)):
            word = {"decision_id": decision, "kind": "correction", "action": right, "source": who}
            said[who] = (await daemon.ask("POST", "/api/feedback", word))["id"]
        await daemon.until("doubted")
        doubts = await daemon.ask("GET", "/api/doubts")
        assert {doubt["feedback_id"] for doubt in doubts} == set(said.values())
        assert "neither is learnt until you answer for one" in doubts[0]["reason"]
        assert (await daemon.ask("POST", "/api/say", {"text": ASKED}))["reply"] == OTHER

        await daemon.ask("POST", "/api/vouch", {"names": [said["Ana"]]})
        settled = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (settled["by"], settled["reply"]) == ("table", RIGHT)
        assert await daemon.ask("GET", "/api/doubts") == []

        changed = await daemon.ask("POST", "/api/edit", {"feedback_id": said["Ana"], "action": THIRD})
        assert (changed["rebuilding"], changed["proof"]["holds"]) == (False, True)
        assert {row["source"]: row["words"] for row in await daemon.ask("GET", "/api/sources")} == {"Ana": 1, "Ben": 1}
        assert (await daemon.ask("POST", "/api/say", {"text": ASKED}))["reply"] == THIRD
