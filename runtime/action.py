"""Decision -> Command -> Outcome: rules, guard and mode, then the actuator; every step is in the journal before the next.

What is covered: a command is committed before it is sent, is sent again after a restart with the same id until it is
settled or too old, and never leaves without the guard's word at the moment of sending. Twice is as good as once, for they
are absolute set-points; a command that is not (`once`) is written down as `sending` before it leaves, and one that was
`sending` when the daemon died is `uncertain`: people are told, and it is never told again by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Protocol

import structlog

from runtime.bus import Bus, Subscription
from runtime.deadline import Left, until
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
UNKNOWN = (
    "the daemon ended while it was told; it is not told again: look, and say what became of it (`corrigible resolve`)"
)
REASON = 300  # characters; a model may propose a name of any length
ANSWER = 5.0  # seconds after the end of a command in which its plugin has to say what became of it
LOOK = 1.0  # seconds between two looks for approvals that nobody gave


class Earned(Protocol):
    """Who knows what an apprentice may do by itself."""

    def acts(self, scope: str, action: Action) -> bool: ...


@dataclass(frozen=True)
class Due:
    """A command and how long it has left."""

    command: Command
    left: Left


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
        monotonic: Callable[[], float] = time.monotonic,
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
        self._clock, self._monotonic = clock, monotonic
        self._group: asyncio.TaskGroup | None = None
        self._queues: dict[str, asyncio.Queue[Due]] = {}
        self._held: dict[str, Due] = {}  # by command id; denied when it is too late
        self._busy = 0

    @property
    def held(self) -> list[Command]:
        return [due.command for due in self._held.values()]

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
        patience, now = self._approval if mode == "confirm" else self._expiry, self._clock()
        command = Command(
            id=derived_id("cm", decision.percept_id, tool.actuator, str(ordinal)),
            decision_id=decision.id,
            actuator=tool.actuator,
            action=action,
            expires_at=min(decision.at, now) + patience,  # the clock may have been put back since it was decided
            at=now,
            once=tool.once,
        )
        if mode == "confirm":
            return await self._hold(command)
        if not await self._journal.put(command, patient=True):
            return None  # a recomputation: it is under way, or was
        await self._bus.publish(command)
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

    async def _hold(self, command: Command) -> None:
        """In one transaction with its command: one without it would be carried out by the next start."""
        held = Outcome(
            id=derived_id("oc", command.id, "held"), decision_id=command.decision_id, command_id=command.id,
            status="held", reason="waits for a person", at=self._clock(),
        )  # fmt: skip
        if not await self._journal.put(command, held, patient=True):
            return
        self._held[command.id] = self._due(command)
        await self._bus.publish(command)
        await self._tell(held)

    async def approve(self, command_id: str, yes: bool) -> None:
        """A person's word on a held command. Raises NotFound if it is not held (any more)."""
        if command_id not in self._held:
            raise NotFound(f"no command {command_id!r} is waiting; it may have been denied by time-out")
        command = self._held.pop(command_id).command
        if not yes:
            return await self._outcome_of(command, "denied", "a person said no")
        self._dispatch(command)
        return None

    async def _deny_late(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            for command_id, due in tuple(self._held.items()):
                if due.left() <= 0:
                    del self._held[command_id]
                    await self._outcome_of(due.command, "denied", "nobody approved it in time")

    async def _resume(self) -> None:
        """Commands the last run left open: held ones wait again, the others are sent again, or are too old, or must not be."""
        for command, status in await self._journal.unsettled():
            if status == "held" or (not status and self.modes.of(command.actuator) == "confirm"):
                self._held[command.id] = self._due(command)
            elif status == "sending":
                await self._outcome_of(command, "uncertain", UNKNOWN)
            else:
                self._dispatch(command)

    def _dispatch(self, command: Command) -> None:
        queue = self._queues.get(command.actuator)
        if queue is None:
            assert self._group is not None, "dispatch before run"
            queue = self._queues[command.actuator] = asyncio.Queue()
            self._group.create_task(self._serve(queue), name=f"act {command.actuator}")
        queue.put_nowait(self._due(command))

    def _due(self, command: Command) -> Due:
        return Due(
            command,
            until(command.at, command.expires_at, clock=lambda: self._clock(), monotonic=lambda: self._monotonic()),
        )

    async def _serve(self, queue: asyncio.Queue[Due]) -> None:
        while True:
            due = await queue.get()
            self._busy += 1
            try:
                await self._send(due)
            finally:
                self._busy -= 1

    async def _send(self, due: Due) -> None:
        command = due.command
        if due.left() <= 0:
            return await self._outcome_of(command, "expired", "expired before it could be sent")
        refusal = self.guard.admit(command)
        if refusal is not None:
            return await self._outcome_of(command, "refused", refusal)
        plugin = self._plugins.get(command.actuator)
        if plugin is None:
            return await self._outcome_of(command, "failed", f"no plugin carries out {command.actuator!r} any more")
        if command.once:
            await self._outcome_of(command, "sending", "it is told once, whatever becomes of it")
            if (refusal := self.guard.permits(command)) is not None:
                return await self._outcome_of(command, "refused", refusal)
        try:
            async with asyncio.timeout(max(due.left(), 0.0) + ANSWER):
                outcome = await plugin.act(command)
        except Exception as error:  # the plugin border; who never answers must not hold up what comes after
            status: OutcomeStatus = "uncertain" if command.once else "failed"
            why = str(error) or "it did not answer in time"
            return await self._outcome_of(command, status, f"{plugin.name}: {type(error).__name__}: {why}")
        await self._commit(outcome)
        return None

    async def resolve(self, command_id: str, done: bool, reason: str) -> None:
        """Somebody knows what became of an uncertain command. Raises NotFound if it is not uncertain (any more)."""
        command = await self._journal.uncertain_one(command_id)
        if command is None:
            raise NotFound(f"no command {command_id!r} is uncertain; `corrigible resolve` lists those that are")
        status: OutcomeStatus = "applied" if done else "failed"
        identity = derived_id("oc", command.id, "resolved")  # two who know it at the same moment say it once
        await self._commit(
            Outcome(
                id=identity, decision_id=command.decision_id, command_id=command.id, status=status, reason=reason,
                at=self._clock(),
            )
        )  # fmt: skip

    async def settled(self, command_id: str, problem: str) -> None:
        """A device named a command that nobody waits for any more: news only if it was uncertain."""
        with suppress(NotFound):
            await self.resolve(command_id, not problem, problem or "the device confirmed it later")

    async def _outcome(self, decision: Decision, command_id: str | None, status: OutcomeStatus, reason: str) -> None:
        reason = reason[:REASON]
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
        if await self._journal.put(outcome, patient=True):
            await self._tell(outcome)

    async def _tell(self, outcome: Outcome) -> None:
        self._metrics.outcomes.labels(outcome.status).inc()
        if outcome.status in ("refused", "failed", "expired"):
            log.warning("not done", status=outcome.status, reason=outcome.reason, decision=outcome.decision_id)
        await self._bus.publish(outcome)


def _owners(actuators: Sequence[Actuator]) -> Mapping[str, Actuator]:
    return {tool.actuator: plugin for plugin in actuators for tools in plugin.tools().values() for tool in tools}
