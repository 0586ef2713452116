"""A running console in front of a control that answers from memory: the routes, the border and the streams are real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import msgspec
import pytest

from runtime import satisfaction
from runtime.bus import Bus, Subscription
from runtime.config import HttpConfig
from runtime.console import border, server
from runtime.errors import NotFound
from runtime.messages import Action, Cycle, Decision, Feedback, Message, Outcome, Release, Turn
from runtime.metrics import Metrics

if TYPE_CHECKING:
    from runtime.control import Control

ROW = {
    "id": "d-1",
    "at": 1_700_000_000.0,
    "scope": "living_room",
    "text": "it is evening, the living room is dark <script>alert(1)</script>",
    "action": "lamp off",
    "by": "model",
    "adapter": "base",
    "p_model": 0.52,
    "outcome": "applied",
    "reason": "",
    "feedback": [],
    "choices": ["lamp off", "lamp dim", "lamp bright", "nothing"],
}
QUESTION = {**ROW, "id": "d-0", "action": "ask", "by": "doubt", "outcome": "asked", "question": ["lamp dim", "nothing"]}

TURNS = [  # three were right, the fourth was not, and she said it again
    Turn(decision=f"d-{n}", at=10.0 * n, scope="hall", who="Ana", words="more light please" if n in (3, 4) else f"wish {n}",
         adapter="base", decided="off", right="bright" if n == 3 else "off", rating=0.5)
    for n in range(5)
]  # fmt: skip
PROOF = {
    "holds": True, "forgotten": 2, "serving": "3f9c0a1b2c3d", "named": 0, "versions": 4, "tainted": [], "removed": ["a1b2c3d4e5f6"],
    "cases": 3, "cases_changed": [], "reference": 50, "reference_changed": 1,
    "changed": ["room: 'dark' -> lamp dim, before lamp off"], "unasked": "",
}  # fmt: skip
JUDGED = {"action": "lamp off", "p": 0.9, "without": "nothing", "p_without": 0.2, "flips": True}
CONTRAST = {
    "decision_id": "d-1", "state": "done", "step": "", "progress": 1.0, "why": "", "adapter": "base", "note": "",
    "removed": [{"feedback_id": "fb-7", "text": "dark"}], "weights": JUDGED, "memory": None, "both": JUDGED, "flips": True,
}  # fmt: skip
MODULES = [
    {"layer": layer, "module": f"{part}_proj", "norm": 1.0, "before": 1.0, "moved": 0.5 + layer / 10, "base": 50.0,
     "rank": 3.0, "similarity": 0.9 - layer / 10, "share": 0.01 + layer / 500}
    for layer in (3, 4) for part in ("q", "v")
]  # fmt: skip
CHANGES = {
    "id": "3f9c0a1b2c3d", "since": "base", "parent": "base", "lessons": {"new": 24, "gone": 1}, "norm": 2.0, "moved": 1.2,
    "share": 0.012, "rank": 3.0, "similarity": 0.85, "modules": MODULES, "asked": 200,
    "flips": [{"scope": "hall", "text": "night", "before": "nothing", "now": "lamp off"}],
}  # fmt: skip


def decision(id: str = "d-1") -> Decision:
    return Decision(
        id=id,
        percept_id="p-1",
        scope="living_room",
        actions=(Action(tool="lamp", arguments={"level": "off"}),),
        by="model",
        adapter="base",
        p_model=0.52,
        p_behaviour=1.0,
        at=1_700_000_000.0,
    )


class Remembered:
    """Answers like every part of `Control`; every call is kept in `calls`."""

    def __init__(self) -> None:
        self.looking = self.showing = self.saying = self.switching = self
        self.bus = Bus()
        self.calls: list[tuple[Any, ...]] = []
        self.ready = {"journal": True, "policy": True, "broker": True}
        self.broken = False

    async def status(self) -> dict[str, Any]:
        if self.broken:
            raise RuntimeError("a secret inside")
        return {
            "agent": "test",
            "pid": 1,
            "version": "0.1",
            "uptime": 12.0,
            "adapter": "3f9c0a1b2c3d",
            "provisional": True,
            "trial": {"release": "re-1", "wins": 3, "losses": 1, "events": 20},
            "waits_for": "canary: 3f9c0a1b2c3d makes 50% of the decisions",
            "changes": {"situations": 80, "flips": 0.15, "divergence": 0.2},
            "why": "a1b2c3d4e5f6 did worse than 3f9c0a1b2c3d",
            "drift": {
                "of": "corrections",
                "at": 0.0,
                "learnt": False,
                "reason": "what people say changed: 31 % of the last 60",
            },
            "apprentice": {
                "lamp": [
                    {"action": "on", "acts": True, "cases": "1 of 12 put right", "reason": ""},
                    {"action": "dim", "acts": False, "cases": "3 of 7 like people", "reason": ""},
                ]
            },
            "doubted": 12,
            "distrusted": ["Eve"],
            "modes": await self.modes(),
            "kill": False,
            "table": True,
            "memory": False,
            "alarms": [{"kind": "missing", "text": "messages 4 to 6 of <b>house</b> (boot 1) never came"}],
            "satisfaction": (await self.satisfaction())["lately"],
            "counts": {"observation": 120, "decision": 40, "feedback": 9},
            "cycle": {
                "id": "c-1",
                "state": "running",
                "epoch": 2.0,
                "progress": 0.4,
                "examples": 24,
                "reason": "",
                "started_at": 0.0,
            },
            "feedback_since": 4,
            "ready": self.ready,
            "degraded": [],
            "condition": "NORMAL",
            "causes": [],
            "plugins": [{"name": "home", "use": "a:B", "roles": ["Sensor"], "state": "running", "restarts": 0}],
        }

    async def decisions(self, limit: int = 50, before: str = "", scope: str = "") -> list[dict[str, Any]]:
        self.calls.append(("decisions", limit, before, scope))
        return [ROW, QUESTION]

    async def row(self, decision: Decision) -> dict[str, Any]:
        return {**ROW, "id": decision.id}

    async def explain(self, id: str) -> dict[str, Any]:
        if id != "d-1":
            raise NotFound(f"there is no decision {id!r}")
        candidates = [
            {"action": "lamp off", "p_model": 0.52, "log_model": -0.65},
            {"action": "nothing", "p_model": 0.48, "log_model": -0.73},
        ]
        remembered = [
            {"text": "dark", "part": 0.6, "named": True, "feedback_id": "fb-7", "source": "Ana", "at": 1.0},
            {"text": "dim", "part": 0.1, "named": False, "feedback_id": "fb-8", "source": "Ben", "at": 2.0},
        ]
        return {**ROW, "candidates": candidates, "remembered": remembered, "table": None, "p_behaviour": 1.0, "timings_ms": {"score": 41.0}, "note": "",
                "fields": {"light": 4}, "causes": ["o-1"], "outcomes": [], "given": [], "lineage": None}  # fmt: skip

    async def mattered(self, id: str) -> dict[str, Any]:
        pieces = [
            {"text": "the living room is dark", "both": 2.5, "weights": 1.5, "instead": "nothing"},
            {"text": "it is evening", "both": -0.4, "weights": 0.0, "instead": ""},
            {"text": "a kitchen", "both": None, "weights": None, "instead": "lamp dim"},
        ]
        return {"adapter": "base", "note": "", "action": "lamp off", "against": "nothing", "pieces": pieces}

    async def prove(self, id: str) -> dict[str, Any]:
        self.calls.append(("prove", id))
        return {**CONTRAST, "state": "running"}

    async def proof(self, id: str) -> dict[str, Any]:
        if ("prove", id) not in self.calls:
            raise NotFound("nobody asked for a proof")
        return CONTRAST

    async def modes(self) -> dict[str, str]:
        return {"lamp": "act", "blind": "observe"}

    async def held(self) -> list[dict[str, Any]]:
        return [
            {"command_id": "cmd-1", "actuator": "door", "decision_id": "d-1", "action": "door open", "expires_at": 2e9}
        ]

    async def cycles(self, limit: int = 20) -> list[dict[str, Any]]:
        cycle = {"id": "c-0", "state": "released", "examples": 20, "reason": "better", "adapter": "3f9c0a1b2c3d"}
        return [{**cycle, "started_at": 6.0, "ended_at": 9.0, "report": {"unlearnt": PROOF}}]

    async def adapters(self) -> list[dict[str, Any]]:
        return [
            {"id": "base", "serving": False, "provisional": False},
            {"id": "3f9c0a1b2c3d", "serving": True, "provisional": True},
        ]

    async def adapter(self, id: str) -> dict[str, Any]:
        return {"id": id}

    async def changes(self, id: str, since: str = "") -> dict[str, Any]:
        self.calls.append(("changes", id, since))
        return CHANGES

    async def curve(self) -> list[list[float]]:
        return [[10, 0.2], [20, 0.45], [30, 0.7], [40, 0.8]]

    async def satisfaction(self, days: float = 0.0) -> dict[str, Any]:
        self.calls.extend([("satisfaction", days)] if days else [])
        found: dict[str, Any] = msgspec.to_builtins(satisfaction.report(TURNS, [], now=1e4, days=days or 7.0))
        return found

    async def topics(self) -> dict[str, Any]:
        return {"asyncapi": "3.0.0"}

    async def feedback(self, decision_id: str, kind: str, **rest: Any) -> dict[str, Any]:
        if decision_id != "d-1":
            raise NotFound(f"there is no decision {decision_id!r}")
        self.calls.append(("feedback", decision_id, kind, rest["action"]))
        return {"id": "fb-1", "decision_id": decision_id, "kind": kind}

    async def forget(self, decision_id: str = "", source: str = "", **rest: Any) -> dict[str, Any]:
        self.calls.append(("forget", decision_id, source, rest["since"]))
        return {"forgotten": 2, "feedback": ["fb-1", "fb-2"], "at": 5.0, "rebuilding": True, "proof": None}

    async def edit(self, feedback_id: str, action: str = "", accept: bool = False, note: str = "") -> dict[str, Any]:
        self.calls.append(("edit", feedback_id, action))
        return {"id": "fb-3", "instead_of": feedback_id, "kind": "correction", "at": 5.0, "rebuilding": False,
                "proof": {**PROOF, "unasked": "no version had to be made anew"}}  # fmt: skip

    async def sources(self) -> list[dict[str, Any]]:
        said = {"words": 12, "agreed": 9, "contradicted": 1, "doubted": 0}
        return [{"source": "Ana", **said, "trust": 0.925, "share": 0.75}]

    async def doubted(self) -> list[dict[str, Any]]:
        reason = "12 of 12 words of Eve contradict what others taught"
        return [{"feedback_id": "fb-2", "source": "Eve", "reason": reason, "text": "dark", "said": "lamp off"}]

    async def vouch(self, names: list[str]) -> dict[str, Any]:
        self.calls.append(("vouch", *names))
        return {"vouched": names, "doubted": 0}

    async def say(self, text: str, scope: str = "chat", who: str = "") -> dict[str, Any]:
        return {**ROW, "reply": text[::-1]}

    async def set_mode(self, actuator: str, mode: str) -> dict[str, Any]:
        self.calls.append(("set_mode", actuator, mode))
        return {"actuator": actuator, "mode": mode}

    async def set_safe(self, on: bool) -> dict[str, Any]:
        self.calls.append(("set_safe", on))
        return {"safe": on}

    async def kill(self, on: bool) -> dict[str, Any]:
        self.calls.append(("kill", on))
        return {"kill": on}

    async def set_table(self, on: bool) -> dict[str, Any]:
        self.calls.append(("set_table", on))
        return {"table": on}

    async def set_memory(self, on: bool) -> dict[str, Any]:
        self.calls.append(("set_memory", on))
        return {"memory": on}

    async def backup(self, to: str = "") -> dict[str, Any]:
        self.calls.append(("backup", to))
        return {"backup": to}

    async def uncertain(self) -> list[dict[str, Any]]:
        return [{"command_id": "cmd-2", "actuator": "bell", "decision_id": "d-1", "action": "bell ring", "at": 1e9}]

    async def resolve(self, command_id: str, done: bool) -> dict[str, Any]:
        self.calls.append(("resolve", command_id, done))
        return {"command_id": command_id, "done": done}

    async def approve(self, command_id: str, yes: bool) -> dict[str, Any]:
        self.calls.append(("approve", command_id, yes))
        return {"command_id": command_id, "approved": yes}

    async def learn(self) -> dict[str, Any]:
        return {"started": True}

    async def promote(self, id: str) -> dict[str, Any]:
        return {"adapter": id}

    async def rollback(self) -> dict[str, Any]:
        return {"adapter": "base"}

    def subscribe(self) -> Subscription[Message]:
        return self.bus.subscribe(Decision, Outcome, Feedback, Cycle, Release, lossy=True)


@dataclass(frozen=True)
class Running:
    """A console that is up."""

    control: Remembered
    data: Path
    port: int
    token: str
    task: asyncio.Task[None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **headers: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}", **headers}, trust_env=False
        )


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Running]:
    control = Remembered()
    serving = server.serve(cast("Control", control), HttpConfig(port=0), tmp_path, Metrics())
    task = asyncio.create_task(serving)
    await asyncio.sleep(0)  # one step: it listens, and has written its port, before it waits for the first time
    port = int((tmp_path / server.PORT_FILE).read_text())
    yield Running(control, tmp_path, port, border.token(tmp_path), task)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
