"""What was decided and why, for people: decisions as rows, their explanations, and the proof by leaving their causes out."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from msgspec import to_builtins

from runtime.bus import Bus, Subscription
from runtime.control.looking import summary
from runtime.counterfactual import Counterfactuals, named
from runtime.errors import NotFound
from runtime.explaining import Explaining
from runtime.journal import Journal
from runtime.learning.registry import Registry
from runtime.messages import Cycle, Decision, Feedback, Message, Outcome, Release
from runtime.remembering import Remembering
from runtime.situations import Catalogues

CHOICES = 200  # actions offered for a correction


class Showing:
    """Changes nothing."""

    def __init__(
        self, journal: Journal, bus: Bus, catalogues: Catalogues, store: Registry, remembering: Remembering,
        explaining: Explaining, counterfactuals: Counterfactuals,
    ) -> None:  # fmt: skip
        self._journal, self._bus, self._catalogues, self._store = journal, bus, catalogues, store
        self._remembering, self._explaining, self._counterfactuals = remembering, explaining, counterfactuals

    def subscribe(self) -> Subscription[Message]:
        return self._bus.subscribe(Decision, Outcome, Feedback, Cycle, Release, lossy=True)

    async def decisions(self, limit: int = 50, before: str = "", scope: str = "") -> list[dict[str, Any]]:
        found = await self._journal.decisions(limit=limit, before=before or None, scope=scope or None)
        return [await self.row(decision) for decision in found]

    async def row(self, decision: Decision) -> dict[str, Any]:
        """A decision as a person sees it in a list."""
        percept = await self._journal.percept(decision.percept_id)
        outcomes = await self._journal.outcomes_of(decision.id)
        feedback = await self._journal.feedback_of(decision.id)
        newest, told = outcomes[-1] if outcomes else None, self._catalogues.told
        return {
            "id": decision.id,
            "at": decision.at,
            "scope": decision.scope,
            "text": percept.text if percept else "",
            "action": told(decision.scope, decision.actions[0]),
            "by": decision.by,
            "adapter": decision.adapter,
            "p_model": decision.p_model,
            "outcome": newest.status if newest else "",
            "reason": newest.reason if newest else "",
            "feedback": [f.kind for f in feedback],
            "chance": decision.chance,
            "question": [told(decision.scope, action) for action in decision.choices],
            "choices": [told(decision.scope, a) for a in self._catalogues.of(decision.scope).finite()[:CHOICES]],
        }

    async def explain(self, decision_id: str) -> dict[str, Any]:
        decision = await self._need(decision_id)
        percept = await self._journal.percept(decision.percept_id)
        return {
            **await self.row(decision),
            "candidates": self._candidates(decision),
            "remembered": await self._remembered(decision, percept.text) if percept and decision.candidates else [],
            "plausible": [self._catalogues.told(decision.scope, action) for action in decision.plausible],
            "p_behaviour": decision.p_behaviour,
            "note": decision.note,
            "table": await self._table(decision.table_feedback) if decision.table_feedback else None,
            "timings_ms": decision.timings_ms,
            "fields": to_builtins(percept.fields) if percept else {},
            "causes": list(percept.causes) if percept else [],
            "outcomes": to_builtins(await self._journal.outcomes_of(decision_id)),
            "given": to_builtins(await self._journal.feedback_of(decision_id)),
            "lineage": self._lineage(decision.adapter),
        }

    async def mattered(self, decision_id: str) -> dict[str, Any]:
        """Which pieces of the situation mattered for a decision: the model is asked again without each."""
        return await self._explaining.mattered(await self._need(decision_id))

    async def prove(self, decision_id: str) -> dict[str, Any]:
        """Begin to train without the lessons that caused a decision; `proof` says how far it is."""
        return self._counterfactuals.ask(await self._need(decision_id))

    async def proof(self, decision_id: str) -> dict[str, Any]:
        return self._counterfactuals.told(decision_id)

    async def _need(self, decision_id: str) -> Decision:
        decision = await self._journal.decision(decision_id)
        if decision is None:
            raise NotFound(f"there is no decision {decision_id!r}; `corrigible decisions` lists the newest")
        return decision

    def _candidates(self, decision: Decision) -> list[dict[str, Any]]:
        rows = [
            {
                "action": self._catalogues.told(decision.scope, c.action),
                "p": _chance(c.log_both),
                "p_model": _chance(c.log_model),
                "p_memory": _chance(c.log_memory),
                "log_model": c.log_model,
            }
            for c in decision.candidates
        ]
        return sorted(rows, key=lambda row: -(row["p"] or 0.0))

    async def _remembered(self, decision: Decision, text: str) -> list[dict[str, Any]]:
        """What people taught that speaks for this action now, the strongest first; `named` are its causes."""
        known = [
            (lesson, part, await self._journal.feedback(lesson.id))
            for lesson, part in await self._remembering.causes(decision.scope, text, decision.actions[0])
        ]
        in_time = [(lesson, part) for lesson, part, given in known if given and given.at <= decision.at]
        causes = {lesson.id for lesson in named(in_time)}
        return [
            {
                "text": lesson.text,
                "part": part,
                "named": lesson.id in causes,
                **_word(lesson.id, given),
            }
            for lesson, part, given in known
        ]

    async def _table(self, feedback_id: str) -> dict[str, Any]:
        """The correction that the table answered with."""
        return _word(feedback_id, await self._journal.feedback(feedback_id))

    def _lineage(self, adapter: str) -> dict[str, Any] | None:
        if adapter == "base":
            return None
        with suppress(NotFound):
            return summary(self._store.manifest(adapter))
        return {"id": adapter, "note": "no longer on disk"}


def _word(feedback_id: str, given: Feedback | None) -> dict[str, Any]:
    return {
        "feedback_id": feedback_id,
        "source": given.source if given else "",
        "at": given.at if given else None,
    }


def _chance(log_p: float | None) -> float | None:
    return math.exp(log_p) if log_p is not None else None
