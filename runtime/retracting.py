"""What people take back, or change -> JOURNAL, then table, memory and weights: `forget` and `edit`.

What was said stays on record; nothing is learnt from it any more. Table and memory lose it at once, the weights by a cycle
that makes them anew without it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import to_builtins

from runtime.errors import BadInput, NotFound
from runtime.ingest import TEXT, Ingest
from runtime.journal import Journal
from runtime.learning.unlearning import Unlearning
from runtime.messages import Action, Feedback, Forgotten, derived_id, new_id
from runtime.remembering import Remembering

NAMED = 200  # ids that an answer names


class Retracting:
    """The part of the control that undoes words."""

    def __init__(
        self,
        journal: Journal,
        ingest: Ingest,
        remembering: Remembering,
        unlearning: Unlearning,
        restore_taught: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._ingest, self._remembering, self._unlearning = journal, ingest, remembering, unlearning
        self._restore_taught, self._clock = restore_taught, clock

    async def forget(
        self, decision_id: str = "", source: str = "", since: float | None = None, until: float | None = None
    ) -> dict[str, Any]:
        """Take words back: all that is true of everything that is named. `decision_id` may be the id of one feedback."""
        if not (decision_id or source or since or until):
            raise BadInput("say what to forget: a decision, a feedback, a source, or a time (since, until)")
        ids = await self._journal.standing(
            decision_id=decision_id, source=source, since=since or 0.0, until=until or math.inf
        )
        if not ids:
            raise NotFound("there is no feedback like that; `corrigible decisions` shows what was said")
        now = self._clock()
        await self._journal.put(*(_taken_back(id, now) for id in ids))
        return {"forgotten": len(ids), "feedback": ids[:NAMED], "at": now, **await self._unlearn(ids)}

    async def edit(self, feedback_id: str, *, action: str = "", accept: bool = False, note: str = "") -> dict[str, Any]:
        """Change what was said, as who said it: the old word is taken back and the new one said, or neither."""
        if bool(action) == accept:
            raise BadInput("say what is right instead: the action, or that what was done was right")
        old = await self._journal.feedback(feedback_id)
        if old is None or not await self._journal.standing(decision_id=feedback_id):
            raise NotFound(
                f"there is no feedback {feedback_id[:80]!r} that still stands; `corrigible explain` shows ids"
            )
        now = self._clock()
        new = Feedback(
            id=new_id("fb"), decision_id=old.decision_id, kind="acceptance" if accept else "correction", source=old.source, at=now,
            action=Action(tool=TEXT, arguments={"text": action}) if action else None, note=note or f"instead of {old.id}",
        )  # fmt: skip
        await self._ingest.replace(_taken_back(old.id, now), new)
        return {"id": new.id, "instead_of": old.id, "kind": new.kind, "at": now, **await self._unlearn([old.id])}

    async def _unlearn(self, ids: Sequence[str]) -> dict[str, Any]:
        """Table and memory at once; the weights by a cycle, or, if they never knew it, with the proof right away."""
        await self._restore_taught()
        self._remembering.forget(ids)
        rebuilding = await self._unlearning.unlearn()
        proof = None if rebuilding else await self._unlearning.proof()
        return {"rebuilding": rebuilding, "proof": to_builtins(proof) if proof is not None else None}


def _taken_back(id: str, now: float) -> Forgotten:
    return Forgotten(id=derived_id("fg", id), feedback_id=id, by="person", at=now)
