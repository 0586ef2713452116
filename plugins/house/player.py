"""Plays situations: sets the stage, says what wakes the agent, waits for its decision, lets the resident answer.

The player knows no transport: a `Port` carries its messages, inside the daemon or over MQTT. It is also the devices:
a command arrives at `command`, and whatever happens to a device is published as its new state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from plugins.house.model import BY_ACTUATOR, Value, after, catalogue, set_to, spell
from plugins.house.resident import Reaction, Resident, effective
from plugins.house.scenes import Case
from runtime.messages import Action

AUTOMATION = "timer"  # what sets the stage says that it was this: a known automation, no override
GUEST = "guest Tom"
APP = "app"  # the device follows a correction that was said on the feedback topic: no override either

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Decided:
    """What the agent decided on a situation, and whether a device really did it."""

    id: str
    action: Action
    by: str
    adapter: str
    carried_out: bool


class Port(Protocol):
    """How the player reaches the agent."""

    async def publish(self, topic: str, value: object) -> str:
        """Send one sensor message; returns its id once the agent has it."""
        ...

    async def ask(self, case: Case, wake: Callable[[], Awaitable[str]]) -> Decided | None:
        """Send what wakes the agent and wait for its decision; None if it takes too long."""
        ...

    async def correct(self, decision: str, right: Action, who: str) -> None: ...

    async def accept(self, decision: str, who: str) -> None: ...


class Player:
    """One home. `tell` hears what happens, in words a narrator can use."""

    def __init__(self, port: Port, resident: Resident, tell: Tell) -> None:
        self._port = port
        self._resident = resident
        self._tell = tell
        self._devices: dict[str, Value] = {}
        self._shown: dict[str, object] = {}  # topic -> what was last published there
        self._words: dict[str, tuple[str, ...]] = {}  # room -> its sensors as last published, in words
        self._era = ""

    async def command(self, actuator: str, text: str) -> bool:
        """Do what an agent commands; False if the device does not know this set-point."""
        device = BY_ACTUATOR.get(actuator)
        value = device.read(text) if device is not None else None
        if value is None:
            return False
        await self._set(actuator, value, "")
        return True

    async def play(self, case: Case, *, react: bool = True) -> Decided | None:
        """One situation from its stage to the resident's answer. Without `react` nobody answers and nothing is put right."""
        if self._era and self._era != case.era:
            self._tell({"event": "habits changed"})
        self._era = case.era
        await self._prepare(case)
        self._tell(_situation(case))
        decided = await self._port.ask(case, lambda: self._wake(case))
        if decided is None:
            self._tell({"event": "no decision", "number": case.number})
            return None
        taken = effective(decided.action, decided.carried_out)
        self._tell(
            {
                "event": "decision", "number": case.number, "decision": decided.id, "by": decided.by,
                "adapter": decided.adapter, "action": catalogue(case.room).render(decided.action),
                "carried_out": decided.carried_out, "right": case.accepts(decided.action),
            }
        )  # fmt: skip
        if react:
            await self._answer(case, decided, self._resident.react(case, taken))
        return decided

    async def _answer(self, case: Case, decided: Decided, reaction: Reaction) -> None:
        who = case.who or "Ana"
        for actuator, value in reaction.acts:
            await self._set(actuator, value, who if reaction.kind == "override" else APP)
        if reaction.kind == "correction":
            await self._port.correct(decided.id, case.right, who)
        elif reaction.kind == "thanks" and case.accepts(decided.action):  # nobody thanks for what was not carried out
            await self._port.accept(decided.id, who)
        told = {"event": reaction.kind, "number": case.number, "decision": decided.id}
        self._tell({**told, "who": who, "right": case.right_text})
        await self._visit(case)

    async def _visit(self, case: Case) -> None:
        """A guest's act says who did it and teaches nothing; what the timer puts back neither."""
        act = self._resident.visited(case)
        if act is not None:
            self._tell({"event": "guest", "number": case.number, "act": spell(set_to(*act))})
            await self._set(*act, GUEST)
            await self._set(act[0], after(case.devices, case.right)[act[0]], AUTOMATION)

    async def _prepare(self, case: Case) -> None:
        """Make the home look as the situation begins. A picture the room shows already would wake nobody."""
        same = self._words.get(case.room) == case.words()
        if case.kind == "sensor" and same:
            await self._interlude(replace(case, readings={**case.readings, "presence": not case.readings["presence"]}))
        if case.kind == "speech" and not same:
            await self._interlude(replace(case, says="", who=""))
        await self._stage(case)

    async def _interlude(self, case: Case) -> None:
        """A picture in between, decided by the agent and answered by nobody."""
        await self._stage(case)
        self._tell({"event": "interlude", "number": case.number, "room": case.room})
        await self._port.ask(case, lambda: self._wake(case))

    async def _stage(self, case: Case) -> None:
        """Sent together, in this order; what wakes the agent is not sent before the agent has all of it."""
        async with asyncio.TaskGroup() as group:
            for topic, value in case.observations():
                if "house/" in topic or "outside/" in topic:
                    group.create_task(self._show(topic, value))
            for actuator, value in case.devices.items():
                if self._devices.get(actuator) != value:
                    group.create_task(self._set(actuator, value, AUTOMATION))

    async def _wake(self, case: Case) -> str:
        """Publish the one message that wakes the agent; returns its id."""
        topic, value = case.observations()[-1]
        if not case.says:
            self._words[case.room] = case.words()
        return await self._port.publish(topic, value)

    async def _show(self, topic: str, value: object) -> None:
        if self._shown.get(topic) != value:
            self._shown[topic] = value
            await self._port.publish(topic, value)

    async def _set(self, actuator: str, value: Value, by: str) -> None:
        """A device changes, by the agent's command (no name), a person or something else, and says so."""
        self._devices[actuator] = value
        state: dict[str, object] = {"state": value}
        await self._port.publish(BY_ACTUATOR[actuator].topic, {**state, "by": by} if by else state)


def _situation(case: Case) -> dict[str, Any]:
    return {
        "event": "situation", "number": case.number, "era": case.era, "room": case.room, "kind": case.kind,
        "clock": case.clock.isoformat(timespec="minutes"), "feels": list(case.words()),
        "devices": dict(case.devices), "says": case.says, "who": case.who, "right": case.right_text,
    }  # fmt: skip
