"""Plugins nobody has reason to fear, one of every role, for the tests of isolation."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from runtime.catalogue import Tool
from runtime.errors import BadInput
from runtime.messages import Action, Command, Decision, Feedback, Observation, Outcome, Percept
from runtime.roles import Actuator, Critic, Emit, Perceiver, Rule, Sensor, Situation, World, observe

LAMP = Tool(name="lamp", arguments={"level": {"enum": ["off", "on"]}}, required=("level",), actuator="lamp")


@dataclass
class Everything(Sensor, Perceiver, Rule, Actuator, Critic):
    """All five roles; what it does shows that it was asked."""

    topic: str = "hall/motion"
    count: int = 3

    async def start(self) -> None:
        print(f"started in {os.getpid()}")

    async def sense(self, emit: Emit) -> None:
        for number in range(self.count):
            await emit(observe(self.topic, number, at=1.0, id=f"ob-{number}"))
        try:
            await emit(observe("refused", 0, at=1.0))
        except BadInput as error:
            await emit(observe(self.topic, str(error), at=1.0, id="refused"))
        await asyncio.Event().wait()

    def perceive(self, world: World, observation: Observation) -> Iterable[Situation]:
        yield Situation(scope="hall", text=f"{world.now:%H:%M} {world.value('hall/light')} {observation.topic}")

    def judge(self, percept: Percept, action: Action, now: datetime) -> str | None:
        return f"not at {now:%H:%M}" if action.arguments.get("level") == "on" else None

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return {"hall": (LAMP,)}

    async def act(self, command: Command) -> Outcome:
        if command.action.arguments["level"] == "off":
            raise OSError("the lamp is unplugged")
        return Outcome(id="oc-1", decision_id=command.decision_id, command_id=command.id, status="applied", at=2.0)

    def criticise(self, message: Observation | Percept | Decision | Command | Outcome) -> Iterable[Feedback]:
        if isinstance(message, Decision):
            yield Feedback(id="fb-1", decision_id=message.id, kind="acceptance", source="eye", at=3.0)
