"""Sensor and actuator without hardware: a home with a resident who has habits, talks, and puts right what is wrong.

In the daemon it is a plugin (`make run`); `python -m plugins.simulated_home --port 1883` is the same home as a process
of its own that talks nothing but MQTT (`plugins/house/process.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from plugins.house import Case, life
from plugins.house.model import tools
from plugins.house.player import Decided, Player
from plugins.house.resident import Resident
from runtime.catalogue import Tool
from runtime.errors import BadInput, Unavailable
from runtime.messages import (
    NOTHING,
    Action,
    Command,
    Decision,
    Feedback,
    FeedbackKind,
    Observation,
    Outcome,
    Percept,
    derived_id,
    new_id,
)
from runtime.roles import Actuator, Critic, Emit, Sensor, observe

log = structlog.get_logger("simulated_home")
NOT_DONE = {"refused", "observed", "held", "denied", "expired", "failed", "uncertain", "none", "asked"}


@dataclass
class SimulatedHome(Sensor, Actuator, Critic):
    """[[plugin]]
    use = "plugins.simulated_home:SimulatedHome"
    seed = 1
    situations = 240   # the habits change after half of them; then life goes on
    seconds = 20.0     # between two situations; 0 = as fast as the agent decides
    patience = 30.0    # seconds the resident waits for a decision
    """

    seed: int = 1
    situations: int = 240
    seconds: float = 20.0
    patience: float = 30.0

    trusted = True

    def __post_init__(self) -> None:
        self._waiting: _Waiting | None = None
        self._player: Player | None = None
        self._emit: Emit | None = None

    async def sense(self, emit: Emit) -> None:
        self._emit = emit
        self._player = Player(self, Resident(self.seed), _tell)
        for case in life(self.seed, self.situations):
            await self._player.play(case)
            await asyncio.sleep(self.seconds)

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return tools()

    async def act(self, command: Command) -> Outcome:
        if self._player is None:
            raise Unavailable("the simulated home has not started yet; the command will fail")
        value = str(command.action.arguments.get("level", ""))
        if not await self._player.command(command.actuator, value):
            raise BadInput(f"the simulated home has no {command.actuator!r} that can be set to {value!r}")
        return Outcome(
            id=derived_id("oc", command.id, "applied"), decision_id=command.decision_id, command_id=command.id,
            status="applied", at=time.time(),
        )  # fmt: skip

    def criticise(self, message: Observation | Percept | Decision | Command | Outcome) -> Iterable[Feedback]:
        """Watches what becomes of the situation it plays. The resident's feedback goes through `emit`, as a person's does."""
        if self._waiting is not None:
            self._waiting.see(message)
        return ()

    async def publish(self, topic: str, value: object) -> str:
        """The player's port: one sensor message, committed on return."""
        message = observe(topic, value, at=time.time(), source=self.name or "simulated_home")
        await self._send(message)
        return message.id

    async def ask(self, case: Case, wake: Callable[[], Awaitable[str]]) -> Decided | None:
        self._waiting = waiting = _Waiting(asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(self.patience):
                waiting.expect(await wake())
                return await waiting.decided
        except TimeoutError:
            return None
        finally:
            self._waiting = None

    async def correct(self, decision: str, right: Action, who: str) -> None:
        await self._say(decision, "correction", who, right)

    async def accept(self, decision: str, who: str) -> None:
        await self._say(decision, "acceptance", who, None)

    async def _say(self, decision: str, kind: FeedbackKind, who: str, right: Action | None) -> None:
        said = Feedback(id=new_id("fb"), decision_id=decision, kind=kind, source=who, at=time.time(), action=right)
        await self._send(said)

    async def _send(self, message: Observation | Feedback) -> None:
        if self._emit is None:
            raise Unavailable("the simulated home has not started yet")
        await self._emit(message)


class _Waiting:
    """One situation's way through the loop: observation -> percept -> decision -> outcome."""

    def __init__(self, decided: asyncio.Future[Decided]) -> None:
        self.decided = decided
        self._cause = ""
        self._early: list[Percept | Decision | Outcome] = []
        self._percept = ""
        self._decision: Decision | None = None

    def expect(self, cause: str) -> None:
        """The message that wakes; what was seen before its id was known is looked at now."""
        self._cause = cause
        early, self._early = self._early, []
        for message in early:
            self.see(message)

    def see(self, message: object) -> None:
        if not isinstance(message, Percept | Decision | Outcome):
            return
        if not self._cause:
            self._early.append(message)
        elif isinstance(message, Percept) and self._cause in message.causes:
            self._percept = message.id
        elif isinstance(message, Decision) and message.percept_id == self._percept:
            self._decision = message
        elif isinstance(message, Outcome) and self._decision is not None and message.decision_id == self._decision.id:
            self._settle(self._decision, message)

    def _settle(self, decision: Decision, outcome: Outcome) -> None:
        action = decision.actions[0] if decision.actions else NOTHING
        decided = Decided(decision.id, action, decision.by, decision.adapter, outcome.status not in NOT_DONE)
        with suppress(asyncio.InvalidStateError):
            self.decided.set_result(decided)


def _tell(event: Mapping[str, Any]) -> None:
    """What happens in the home, in the daemon's log."""
    details = {
        key: value
        for key, value in event.items()
        if key not in ("event", "feels", "devices") and value not in ("", None)
    }
    log.info(str(event["event"]), **details)


def main() -> None:
    """`python -m plugins.simulated_home`: the home as a process of its own."""
    from plugins.house.process import main as play_over_mqtt

    play_over_mqtt()


if __name__ == "__main__":
    main()
