"""The dialogue this project began with, with the whole daemon: asked, corrected, right at once by the table, and after
one cycle right without it. Taken back, nothing is left of it."""

from __future__ import annotations

import asyncio
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


async def cycle(daemon: Daemon) -> dict[str, Any]:
    """Learn now, and wait for the verdict."""
    await daemon.ask("POST", "/api/learn", {})
    while True:
        cycles = await daemon.ask("GET", "/api/cycles")
        if cycles and cycles[0]["state"] != "running":
            return dict(cycles[0])
        await asyncio.sleep(0.2)


async def test_corrected_once_then_right_by_the_table_then_by_the_weights(tmp_path: Path) -> None:
    config, data = tmp_path / "config.toml", tmp_path / "data"
    data.mkdir()
    config.write_text(CONFIG.format(data=data), encoding="utf-8")
    async with asyncio.timeout(PATIENCE), Daemon(config, data).running() as daemon:
        first = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (first["by"], first["reply"] == RIGHT) == ("model", False)
        correction = {"decision_id": first["id"], "kind": "correction", "action": RIGHT}
        await daemon.ask("POST", "/api/feedback", correction)

        at_once = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (at_once["by"], at_once["reply"]) == ("table", RIGHT)

        assert (await cycle(daemon))["state"] in ("released", "provisional")
        await daemon.ask("POST", "/api/table", {"on": False})
        learnt = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (learnt["by"], learnt["reply"]) == ("model", RIGHT)
        assert learnt["adapter"] != "base"

        taken_back = await daemon.ask("POST", "/api/forget", {"decision_id": first["id"]})
        assert (taken_back["forgotten"], taken_back["rebuilding"]) == (1, True)
        while "unlearnt" not in (proven := (await daemon.ask("GET", "/api/cycles"))[0]["report"]):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        proof = proven["unlearnt"]
        assert (proof["holds"], proof["serving"], proof["versions"], proof["removed"]) == (
            True, "base", 0, [learnt["adapter"]]
        )  # fmt: skip
        await daemon.ask("POST", "/api/table", {"on": True})
        unlearnt = await daemon.ask("POST", "/api/say", {"text": ASKED})
        assert (unlearnt["adapter"], unlearnt["by"], unlearnt["reply"] == RIGHT) == ("base", "model", False)
        assert [one["id"] for one in await daemon.ask("GET", "/api/adapters")] == ["base"]


async def test_two_people_who_disagree_and_a_third_who_decides(tmp_path: Path) -> None:
    """Whoever corrected last is obeyed; the dispute is listed; after one word for Ana her answer stands."""
    config, data = tmp_path / "config.toml", tmp_path / "data"
    data.mkdir()
    config.write_text(CONFIG.format(data=data), encoding="utf-8")
    async with asyncio.timeout(PATIENCE), Daemon(config, data).running() as daemon:
        decision = (await daemon.ask("POST", "/api/say", {"text": ASKED}))["id"]
        said = {}
        for who, right in (("Ana", RIGHT), ("Ben", OTHER)):
            word = {"decision_id": decision, "kind": "correction", "action": right, "source": who}
            said[who] = (await daemon.ask("POST", "/api/feedback", word))["id"]
        while len(doubts := await daemon.ask("GET", "/api/doubts")) < 2:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.2)
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
