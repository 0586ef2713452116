"""What people say: their words are handed in, taken back, changed, doubted and vouched for, and answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from msgspec import to_builtins

from runtime.bus import Bus, Subscription
from runtime.catalogue import REPLY
from runtime.config import LearnerConfig
from runtime.control.showing import Showing
from runtime.doubting import Doubts
from runtime.errors import BadInput, NotFound, Unavailable
from runtime.ingest import TEXT, Ingest
from runtime.journal import Journal
from runtime.learning.doubt import Doubted
from runtime.messages import Action, Decision, Feedback, Observation, new_id
from runtime.retracting import Retracting
from runtime.roles import observe
from runtime.situations import Catalogues

SAY_TIMEOUT = 90.0  # seconds a person waits for an answer


class Saying:
    """Everything goes through the door that sensors use, too."""

    def __init__(
        self, journal: Journal, bus: Bus, catalogues: Catalogues, ingest: Ingest, doubts: Doubts, retracting: Retracting,
        showing: Showing, settings: LearnerConfig, *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._journal, self._bus, self._catalogues, self._ingest = journal, bus, catalogues, ingest
        self._doubts, self._retracting, self._showing = doubts, retracting, showing
        self._settings, self._clock = settings, clock

    async def feedback(
        self,
        decision_id: str,
        kind: str,
        *,
        action: str = "",
        rejected: str = "",
        rating: float | None = None,
        source: str = "person",
        note: str = "",
        id: str = "",
    ) -> dict[str, Any]:
        if kind not in ("correction", "acceptance", "rating", "preference"):
            raise BadInput(f"a person gives a correction, an acceptance, a rating or a preference, not {kind!r}")
        feedback = Feedback(
            id=id or new_id("fb"),
            decision_id=decision_id,
            kind=kind,  # type: ignore[arg-type]
            source=source or "person",
            at=self._clock(),
            action=_written(action),
            rejected=_written(rejected),
            rating=rating,
            note=note,
        )
        await self._ingest.emit(feedback)
        return {"id": feedback.id, "decision_id": decision_id, "kind": kind}

    async def forget(
        self, decision_id: str = "", source: str = "", since: float | None = None, until: float | None = None
    ) -> dict[str, Any]:
        """Take feedback back: of a decision (or one feedback, by its id), a source, a time, or all that is named at once.
        What was learnt from it is unlearnt: from the table and the memory now, from the weights by a cycle without it."""
        return await self._retracting.forget(decision_id, source, since, until)

    async def edit(self, feedback_id: str, action: str = "", accept: bool = False, note: str = "") -> dict[str, Any]:
        """Change what was said: the old word is taken back and the new one said, at once."""
        return await self._retracting.edit(feedback_id, action=action, accept=accept, note=note)

    async def sources(self) -> list[dict[str, Any]]:
        """Who teaches, how far each is trusted, and how much of what is learnt is theirs."""
        return await self._doubts.sources(self._settings)

    async def doubted(self) -> list[dict[str, Any]]:
        """Feedback that is kept but not learnt from, and why."""
        return [await self._doubt(doubted) for doubted in self._doubts.found.doubted]

    async def _doubt(self, doubted: Doubted) -> dict[str, Any]:
        feedback = await self._journal.feedback(doubted.feedback_id)
        decision = await self._journal.decision(feedback.decision_id) if feedback else None
        percept = await self._journal.percept(decision.percept_id) if decision else None
        said = feedback.action if feedback and feedback.action else decision.actions[0] if decision else None
        return {
            **to_builtins(doubted),
            "text": percept.text if percept else "",
            "said": self._catalogues.told(decision.scope, said) if decision and said else "",
        }

    async def vouch(self, names: list[str]) -> dict[str, Any]:
        """Somebody answers for doubted feedback (by id), or for all that a source says: it is learnt from again."""
        known = {name for doubted in self._doubts.found.doubted for name in (doubted.feedback_id, doubted.source)}
        unknown = sorted(set(names) - known)
        if not names or unknown:
            raise NotFound(f"nothing of {', '.join(unknown) or 'nobody'} is doubted; `corrigible doubts` lists what is")
        await self._doubts.vouch(*names)
        return {"vouched": names, "doubted": len(self._doubts.found.doubted)}

    async def say(self, text: str, scope: str = "chat", who: str = "") -> dict[str, Any]:
        """Hand a person's words in and wait for the decision."""
        if not text.strip():
            raise BadInput("there is nothing to answer: the text is empty")
        if scope not in self._catalogues.scopes:
            raise NotFound(
                f"there is no scope {scope!r}; the scopes are {', '.join(self._catalogues.scopes) or 'none'}"
            )
        body = {"input": text} if scope == "chat" else {"says": text, **({"who": who} if who else {})}
        message = observe(f"say/{scope}/speech", body, at=self._clock(), source=who or "console")
        with self._bus.subscribe(Decision, lossy=True) as decisions:
            await self._ingest.emit(message)
            decision = await self._answer(decisions, message)
        row = await self._showing.row(decision)
        reply = decision.actions[0].arguments.get("text", "") if decision.actions[0].tool == REPLY.name else ""
        return {**row, "reply": reply}

    async def _answer(self, decisions: Subscription[Decision], message: Observation) -> Decision:
        try:
            async with asyncio.timeout(SAY_TIMEOUT):
                async for decision in decisions:
                    percept = await self._journal.percept(decision.percept_id)
                    if percept is not None and message.id in percept.causes:
                        return decision
        except TimeoutError:
            pass
        raise Unavailable(f"no decision within {SAY_TIMEOUT:g} s; see `corrigible status`")


def _written(text: str) -> Action | None:
    """An action that a person wrote; the door reads it against the decision's catalogue."""
    return Action(tool=TEXT, arguments={"text": text}) if text else None
