"""Decision -> Command -> Outcome: rules, guard and mode, then the actuator; every step is in the journal before the next.

What is covered: a command is committed before it is sent, is sent again after a restart with the same id until it is
settled or too old, and never leaves without the guard's word at the moment of sending. What is not: a device that does
not remember command ids may see one twice (they are absolute set-points, so twice is once).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Protocol

import structlog

from runtime.bus import Bus, Subscription
from runtime.errors import NotFound
from runtime.guard import Guard, Modes
from runtime.journal import Journal
from runtime.messages import (
    ASK,
    NOTHING,
    Action,
    Command,
    Decision,
    Outcome,
    OutcomeStatus,
    Percept,
    derived_id,
    new_id,
)
from runtime.metrics import Metrics
from runtime.roles import Actuator, Rule, answer
from runtime.situations import Catalogues

log = structlog.get_logger("action")
REHEARSAL = "rehearsal"
LOOK = 1.0  # seconds between two looks for approvals that nobody gave


class Earned(Protocol):
    """Who knows what an apprentice may do by itself."""

    def acts(self, scope: str, action: Action) -> bool: ...


class Acting:
    """The stage. One worker per actuator keeps its commands in order; a slow device holds up nobody else."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        catalogues: Catalogues,
        actuators: Sequence[Actuator],
        rules: Sequence[Rule],
        guard: Guard,
        modes: Modes,
        metrics: Metrics,
        *,
        zone: tzinfo,
        expiry: float,
        approval: float,
        apprentice: Earned | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._bus = bus
        self._catalogues = catalogues
        self._plugins = _owners(actuators)
        self._rules = rules
        self.guard = guard
        self.modes = modes
        self._metrics = metrics
        self._zone = zone
        self._expiry = expiry
        self._approval = approval
        self._apprentice = apprentice
        self._clock = clock
        self._group: asyncio.TaskGroup | None = None
        self._queues: dict[str, asyncio.Queue[Command]] = {}
        self._held: dict[str, tuple[Command, float]] = {}  # command id -> command and when it is denied
        self._busy = 0

    @property
    def held(self) -> list[Command]:
        return [command for command, _ in self._held.values()]

    @property
    def backlog(self) -> int:
        return self._busy + sum(queue.qsize() for queue in self._queues.values())

    async def run(self, decisions: Subscription[Decision]) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._resume()
            group.create_task(self._deny_late(), name="deny late approvals")
            async for decision in decisions:
                await self.take(decision)

    async def take(self, decision: Decision) -> None:
        """Judge every action of a decision; commit the command or the refusal."""
        percept = await self._journal.percept(decision.percept_id)
        for ordinal, action in enumerate(decision.actions):
            await self._take(decision, percept, ordinal, action)

    async def _take(self, decision: Decision, percept: Percept | None, ordinal: int, action: Action) -> None:
        if action == ASK:
            return await self._outcome(decision, None, "asked", "it is unsure; a correction answers it")
        if action == NOTHING and decision.by == "doubt":
            return await self._outcome(decision, None, "none", "it is unsure")
        catalogue = self._catalogues.of(decision.scope)
        tool = next((tool for tool in catalogue.tools if tool.name == action.tool), None)
        if tool is not None and not tool.actuator:
            return await self._outcome(decision, None, "none", "the action needs no device")
        reason = self.guard.judge(action, catalogue) or await self._rule(percept, action)
        if reason is not None or tool is None:
            return await self._outcome(decision, None, "refused", reason or "unknown tool")
        if decision.note == REHEARSAL:
            return await self._outcome(decision, None, "none", "a rehearsal")
        mode = self.modes.of(tool.actuator)
        if mode == "observe" or (mode == "apprentice" and not self._earned(decision.scope, action)):
            return await self._outcome(decision, None, "observed", f"{tool.actuator} is in mode {mode}")
        patience = self._approval if mode == "confirm" else self._expiry
        command = Command(
            id=derived_id("cm", decision.percept_id, tool.actuator, str(ordinal)),
            decision_id=decision.id,
            actuator=tool.actuator,
            action=action,
            expires_at=decision.at + patience,
            at=self._clock(),
        )
        await self._journal.put(command)
        await self._bus.publish(command)
        if mode == "confirm":
            return await self._hold(decision.id, command)
        self._dispatch(command)
        return None

    def _earned(self, scope: str, action: Action) -> bool:
        return self._apprentice is not None and self._apprentice.acts(scope, action)

    async def _rule(self, percept: Percept | None, action: Action) -> str | None:
        """The first rule that says no; a rule that fails says no too (fail closed)."""
        if percept is None:
            return "its percept is not in the journal"
        now = datetime.fromtimestamp(self._clock(), self._zone)
        for rule in self._rules:
            try:
                reason = await answer(rule.judge(percept, action, now))
            except Exception as error:  # the plugin border
                return f"rule {rule.name} failed: {type(error).__name__}: {error}"
            if reason is not None:
                return f"{rule.name}: {reason}"
        return None

    async def _hold(self, decision_id: str, command: Command) -> None:
        self._held[command.id] = (command, command.expires_at)
        await self._outcome_of(command, "held", "waits for a person")

    async def approve(self, command_id: str, yes: bool) -> None:
        """A person's word on a held command. Raises NotFound if it is not held (any more)."""
        if command_id not in self._held:
            raise NotFound(f"no command {command_id!r} is waiting; it may have been denied by time-out")
        command, _ = self._held.pop(command_id)
        if not yes:
            return await self._outcome_of(command, "denied", "a person said no")
        self._dispatch(command)
        return None

    async def _deny_late(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            now = self._clock()
            for command_id, (command, until) in tuple(self._held.items()):
                if now >= until:
                    del self._held[command_id]
                    await self._outcome_of(command, "denied", "nobody approved it in time")

    async def _resume(self) -> None:
        """Commands the last run left open: held ones wait again, the others are sent again or are too old."""
        for command, status in await self._journal.unsettled():
            if status == "held":
                self._held[command.id] = (command, command.expires_at)
            else:
                self._dispatch(command)

    def _dispatch(self, command: Command) -> None:
        queue = self._queues.get(command.actuator)
        if queue is None:
            assert self._group is not None, "dispatch before run"
            queue = self._queues[command.actuator] = asyncio.Queue()
            self._group.create_task(self._serve(queue), name=f"act {command.actuator}")
        queue.put_nowait(command)

    async def _serve(self, queue: asyncio.Queue[Command]) -> None:
        while True:
            command = await queue.get()
            self._busy += 1
            try:
                await self._send(command)
            finally:
                self._busy -= 1

    async def _send(self, command: Command) -> None:
        refusal = self.guard.admit(command)
        if refusal is not None:
            late = self._clock() >= command.expires_at
            return await self._outcome_of(command, "expired" if late else "refused", refusal)
        plugin = self._plugins.get(command.actuator)
        if plugin is None:
            return await self._outcome_of(command, "failed", f"no plugin carries out {command.actuator!r} any more")
        try:
            outcome = await plugin.act(command)
        except Exception as error:  # the plugin border
            return await self._outcome_of(command, "failed", f"{plugin.name}: {type(error).__name__}: {error}")
        await self._commit(outcome)
        return None

    async def _outcome(self, decision: Decision, command_id: str | None, status: OutcomeStatus, reason: str) -> None:
        identity = derived_id("oc", decision.id, status, reason)
        await self._commit(
            Outcome(
                id=identity,
                decision_id=decision.id,
                command_id=command_id,
                status=status,
                reason=reason,
                at=self._clock(),
            )
        )

    async def _outcome_of(self, command: Command, status: OutcomeStatus, reason: str) -> None:
        await self._commit(
            Outcome(
                id=new_id("oc"), decision_id=command.decision_id, command_id=command.id,
                status=status, reason=reason, at=self._clock(),
            )
        )  # fmt: skip

    async def _commit(self, outcome: Outcome) -> None:
        if await self._journal.put(outcome):
            self._metrics.outcomes.labels(outcome.status).inc()
            if outcome.status in ("refused", "failed", "expired"):
                log.warning("not done", status=outcome.status, reason=outcome.reason, decision=outcome.decision_id)
            await self._bus.publish(outcome)


def _owners(actuators: Sequence[Actuator]) -> Mapping[str, Actuator]:
    return {tool.actuator: plugin for plugin in actuators for tools in plugin.tools().values() for tool in tools}
