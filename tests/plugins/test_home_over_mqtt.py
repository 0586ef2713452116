"""The home as a process against the real MQTT plugin, perception and override critic; only the model is played."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import Any, cast

import pytest

from plugins.broker import Broker
from plugins.house import Case, stream
from plugins.house.model import BY_ACTUATOR, ROOMS, catalogue
from plugins.house.settings import plugin_tables
from plugins.mqtt import Mqtt
from plugins.override import Override
from runtime.bus import Bus
from runtime.config import PerceptionConfig
from runtime.journal import Journal
from runtime.messages import NOTHING, Candidate, Command, Decision, Feedback, Observation, Outcome, Percept, derived_id
from runtime.perception import Perception
from runtime.plugins import load
from runtime.roles import Context

COUNT = 16


@pytest.fixture
def context(broker: Broker, tmp_path: Path) -> Context:
    return Context(agent="corrigible", data=tmp_path, broker=broker.config, zone=UTC)


class Daemon:
    """Perception, critics and actuator as the runtime wires them; every other decision is wrong."""

    def __init__(self, context: Context, cases: list[Case]) -> None:
        mqtt, override = load(plugin_tables(), context)
        assert isinstance(mqtt, Mqtt)
        assert isinstance(override, Override)
        self.mqtt, self.override, self.cases = mqtt, override, cases
        self.perception = Perception(
            cast(Journal, None), Bus(), PerceptionConfig(), [], zone=UTC, actuators=BY_ACTUATOR, scopes=ROOMS
        )
        self.decided: list[Decision] = []
        self.feedback: list[Feedback] = []
        self._seen: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()

    async def emit(self, message: Observation | Feedback) -> None:
        if message.id in self._seen:
            return
        self._seen.add(message.id)
        if isinstance(message, Feedback):
            self.feedback.append(message)
            return
        self._tell(message)
        for percept in self.perception.perceive(message):
            task = asyncio.create_task(self._decide(percept))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _tell(self, message: Observation | Percept | Decision | Command | Outcome) -> None:
        self.mqtt.criticise(message)
        self.feedback.extend(self.override.criticise(message))

    async def _decide(self, percept: Percept) -> None:
        case = self.cases[len(self.decided)]
        finite = catalogue(percept.scope).finite()
        wrong = next(action for action in finite if not case.accepts(action))
        action = wrong if len(self.decided) % 2 else case.right
        decision = Decision(
            id=derived_id("dc", percept.id), percept_id=percept.id, scope=percept.scope, actions=(action,), by="model",
            adapter="base", p_model=0.5, p_behaviour=1.0, at=time.time(), candidates=tuple(Candidate(action=a) for a in finite),
        )  # fmt: skip
        self.decided.append(decision)
        self._tell(percept)
        self._tell(decision)
        if action == NOTHING:
            return
        command = Command(
            id=derived_id("cm", percept.id), decision_id=decision.id, actuator=action.tool, action=action,
            expires_at=time.time() + 30, at=time.time(),
        )  # fmt: skip
        self._tell(command)
        outcome = await self.mqtt.act(command)
        assert outcome.status == "applied", outcome
        self._tell(outcome)


async def test_the_home_teaches_what_is_right_over_mqtt(context: Context) -> None:
    cases = stream(1, COUNT)
    daemon = Daemon(context, cases)
    sensing = asyncio.create_task(daemon.mqtt.sense(daemon.emit))
    async with asyncio.timeout(90):
        home = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "plugins.simulated_home", "--port", str(context.broker.port), "--count", str(COUNT),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await home.communicate()
    sensing.cancel()
    with suppress(asyncio.CancelledError):
        await sensing
    events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    decided = [event for event in events if event["event"] == "decision"]
    assert [event["decision"] for event in decided] == [decision.id for decision in daemon.decided]
    assert all(event["carried_out"] for event in decided)
    wrong = {d.id: case.right for d, case in zip(daemon.decided, cases, strict=True) if not case.accepts(d.actions[0])}
    assert len(wrong) == COUNT // 2
    by_hand = {f.decision_id: f.action for f in daemon.feedback if f.kind == "override"}
    said = {f.decision_id: f.action for f in daemon.feedback if f.kind == "correction"}
    assert by_hand.keys() | said.keys() == wrong.keys()
    assert not by_hand.keys() & said.keys()
    assert all(wrong[decision] == action for decision, action in by_hand.items())
    texts = {f.decision_id: f.action.arguments["text"] for f in daemon.feedback if f.kind == "correction" and f.action}
    assert all(catalogue(d.scope).parse(texts[d.id]) == wrong[d.id] for d in daemon.decided if d.id in texts)
