"""JOURNAL -> what an actuator in mode `apprentice` may do by itself: the actions that it would have done as people did.

It decides in silence, and what people do or say then is compared with it. Each action (a tool with its values) stands for itself:
`lamp on` may be carried out while `lamp dim` is still watched. Against an action counts: people wanted another one, nobody did
anything (though the device was not like that already), and people did it while something else was decided. What is carried out
is watched too: where people put it right, it falls back to silence. The guard stands above all of this.

The counts are read from the journal whenever somebody spoke; kept is only since when an action is carried out, or no longer is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import structlog

from runtime.bus import Subscription
from runtime.guard import Modes
from runtime.journal import Journal
from runtime.learning import agreement
from runtime.messages import Action, Feedback, Message, Scalar, Witnessed
from runtime.situations import Catalogues
from runtime.words import canonical

log = structlog.get_logger("apprentice")
KEY = "apprentice"  # the journal's note of what is carried out, and since when
LOOK_BACK = 1000  # decisions of a scope
LEFT_ALONE = 600.0  # seconds after which people who did and said nothing have left the device alone
DONE, SILENT = ("applied", "sent", "uncertain"), "observed"


class Standing(Message, frozen=True, kw_only=True):
    """Whether an action is carried out, and since when: cases before that are not counted any more."""

    acts: bool = False
    since: float = 0.0
    reason: str = ""


class Class(Message, frozen=True, kw_only=True):
    """An action, and the cases that count for or against it, oldest first."""

    actuator: str
    action: Action
    standing: Standing
    cases: tuple[bool, ...]

    def __str__(self) -> str:
        newest = self.cases[-agreement.CASES :]
        if self.standing.acts:
            return f"{newest.count(False)} of {len(newest)} put right"
        return f"{sum(newest)} of {len(newest)} like people"


class Apprentice:
    """The stage. `standing` is asked before every act."""

    def __init__(
        self,
        journal: Journal,
        catalogues: Catalogues,
        modes: Modes,
        bound: float,
        *,
        believes: Callable[[str, str], bool] = lambda feedback, source: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`believes(feedback, source)` says whose word counts."""
        self._journal, self._catalogues, self._modes, self._bound = journal, catalogues, modes, bound
        self._believes, self._clock = believes, clock
        self._standings: dict[str, Standing] = {}

    async def restore(self) -> None:
        self._standings = msgspec.convert(await self._journal.metadata(KEY) or {}, dict[str, Standing])

    async def run(self, feedbacks: Subscription[Feedback]) -> None:
        async for feedback in feedbacks:
            await self.hear(feedback)

    async def hear(self, feedback: Feedback) -> None:
        """Somebody did or said something: look again at all that is learnt in that scope."""
        decision = await self._journal.decision(feedback.decision_id)
        if decision is not None:
            for one in await self._classes(decision.scope):
                await self._judge(decision.scope, one)

    def acts(self, scope: str, action: Action) -> bool:
        """May this be carried out without a person?"""
        return self._standing(scope, action).acts

    async def report(self) -> dict[str, list[dict[str, Any]]]:
        """What every actuator in this mode has shown so far, for people."""
        found: dict[str, list[dict[str, Any]]] = {}
        for scope in self._scopes():
            for one in await self._classes(scope):
                text = self._catalogues.of(scope).render(one.action).removeprefix(f"{one.action.tool} ")
                row = {"action": text, "acts": one.standing.acts, "cases": str(one), "reason": one.standing.reason}
                found.setdefault(one.actuator, []).append(row)
        return found

    def _scopes(self) -> list[str]:
        """Those with an actuator in this mode."""
        return [scope for scope in self._catalogues.scopes if self._actuators(scope)]

    def _actuators(self, scope: str) -> dict[str, str]:
        """Tool -> its actuator, of those in this mode."""
        tools = (tool for tool in self._catalogues.of(scope).tools if tool.actuator)
        return {tool.name: tool.actuator for tool in tools if self._modes.of(tool.actuator) == "apprentice"}

    async def _classes(self, scope: str) -> list[Class]:
        """Every action of an actuator in this mode that was decided on, done or asked for lately."""
        actuators, catalogue = self._actuators(scope), self._catalogues.of(scope)
        if not actuators:
            return []
        told = await self._journal.witnessed(scope, limit=LOOK_BACK)
        rows = [row for words in told if (row := next(filter(self._counts, words), None)) is not None]
        seen = {_key(scope, action): action for row in rows for action in (row.action, row.right) if action is not None}
        return [
            Class(
                actuator=actuators[action.tool], action=action, standing=self._standing(scope, action),
                cases=tuple(self._cases(rows, action, actuators[action.tool], self._standing(scope, action))),
            )
            for _, action in sorted(seen.items()) if action.tool in actuators and catalogue.allows(action)
        ]  # fmt: skip

    def _counts(self, row: Witnessed) -> bool:
        return not row.word or self._believes(row.word, row.source)

    def _cases(self, rows: Sequence[Witnessed], action: Action, actuator: str, standing: Standing) -> Iterable[bool]:
        """What counts: of an action that is carried out, what became of it; of one that is not, all that people did."""
        settled = self._clock() - LEFT_ALONE
        for row in rows:
            if row.at <= standing.since or action not in (row.action, row.right):
                continue
            if standing.acts:
                if row.status in DONE and row.action == action:
                    yield not row.word or row.right == action
            elif row.word:
                if row.status == SILENT or row.action != action:
                    yield row.action == row.right
            elif row.status == SILENT and row.at <= settled and not _already(row.fields, actuator, action):
                yield False

    async def _judge(self, scope: str, one: Class) -> None:
        """Let it act, or no longer, where that is shown."""
        name = self._catalogues.of(scope).render(one.action)
        if not one.standing.acts and agreement.proven(one.cases, self._bound):
            await self._become(scope, one, True, f"{name}: it decided {one}")
        elif one.standing.acts and agreement.broken(one.cases, self._bound):
            late = one.cases[-agreement.LATE :]
            await self._become(
                scope, one, False, f"{name}: people put {late.count(False)} of the last {len(late)} right"
            )

    async def _become(self, scope: str, one: Class, acts: bool, reason: str) -> None:
        standing = Standing(acts=acts, since=self._clock(), reason=reason)
        changed = {**self._standings, _key(scope, one.action): standing}
        await self._journal.set_metadata(KEY, msgspec.to_builtins(changed), patient=True)
        self._standings = changed
        log.info("acts by itself" if acts else "decides in silence again", actuator=one.actuator, reason=reason)

    def _standing(self, scope: str, action: Action) -> Standing:
        return self._standings.get(_key(scope, action), Standing())


def _key(scope: str, action: Action) -> str:
    return f"{scope} {msgspec.json.encode(action, order='sorted').decode()}"


def _already(fields: dict[str, Scalar], actuator: str, action: Action) -> bool:
    """Whether the situation showed the device like this: then there was nothing for people to do."""
    shown = [value for name, value in fields.items() if name.replace("/", "_") == canonical(actuator)]
    return bool(shown) and shown == list(action.arguments.values())
