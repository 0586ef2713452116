"""The door: Observation or Feedback -> journal -> bus. What passes is committed; what cannot be used is quarantined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import structlog
from msgspec.structs import replace

from runtime import payload
from runtime.bus import Bus
from runtime.catalogue import Catalogue
from runtime.errors import BadInput, NotFound, Unwritable
from runtime.journal import Journal
from runtime.marks import Marks, numbered
from runtime.messages import ASK, Action, Decision, Feedback, Forgotten, Observation, Quarantined
from runtime.metrics import Metrics
from runtime.table import CorrectionTable

log = structlog.get_logger("ingest")
TEXT = "text"  # an Action of this tool is a rendered action that still has to be read


class CatalogueOf(Protocol):
    def __call__(self, scope: str) -> Catalogue: ...


class Ingest:
    """`emit` of every sensor ends here."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        table: CorrectionTable,
        catalogue_of: CatalogueOf,
        metrics: Metrics,
        taught: Callable[[Decision, Feedback], None] = lambda decision, feedback: None,
    ) -> None:
        self._journal = journal
        self._bus = bus
        self._table = table
        self._catalogue_of = catalogue_of
        self._metrics = metrics
        self._taught = taught
        self.marks = Marks(journal, metrics)

    async def emit(self, message: Observation | Feedback) -> None:
        """Commit, then tell the bus. Raises BadInput or NotFound after the message was put into quarantine."""
        if isinstance(message, Observation):
            await self._observation(message)
        else:
            await self._feedback(message)

    async def _observation(self, observation: Observation) -> None:
        if self._journal.low:
            raise Unwritable("the disk is full: nothing more is taken in; free some space and it goes on by itself")
        try:
            payload.parse_scalar(observation.payload)
        except BadInput as error:
            await self._put(payload.quarantined(observation, str(error)), observation)
            self._metrics.quarantined.inc()
            log.warning("quarantined", topic=observation.topic[:200], bytes=len(observation.payload), reason=str(error))
            raise
        if await self._put(observation, observation):
            self._metrics.observations.inc()
            await self._bus.publish(observation)
        else:
            self._metrics.duplicates.inc()

    async def _put(self, message: Observation | Quarantined, observation: Observation) -> int:
        """Store what came of an observation; and, where its producer numbers, that it came."""
        place = numbered(observation.properties)
        if place is None:
            return await self._journal.put(message)
        new = await self._journal.put_numbered(message, *place)
        self.marks.hear(place)
        return new

    async def replace(self, old: Forgotten, feedback: Feedback) -> None:
        """Take an older word back and say this one instead: both or, if it is refused as by `emit`, neither."""
        await self._feedback(feedback, instead=old)

    async def _feedback(self, feedback: Feedback, instead: Forgotten | None = None) -> None:
        decision = await self._journal.decision(feedback.decision_id)
        try:
            complete = self._complete(feedback, decision)
        except BadInput as error:
            await self._refuse(feedback, str(error))
            raise
        try:
            new = await self._journal.put_feedback(complete, instead=instead, decided=decision is not None)
        except NotFound:
            self._metrics.quarantined.inc()
            raise
        if not new or decision is None:
            return
        percept = await self._journal.percept(decision.percept_id)
        if percept is not None:
            self._table.learn(percept, decision, complete)
        self._taught(decision, complete)
        self._metrics.feedback.labels(complete.kind).inc()
        log.info("feedback", decision=decision.id, kind=complete.kind, source=complete.source)
        await self._bus.publish(complete)

    def _complete(self, feedback: Feedback, decision: Decision | None) -> Feedback:
        """Read actions given as text and check that the feedback says what its kind needs."""
        if decision is None:
            return feedback  # `put_feedback` refuses it and keeps it
        catalogue = self._catalogue_of(decision.scope)
        if decision.actions[0] == ASK and feedback.kind in ("acceptance", "rating"):
            raise BadInput("a question is answered by the right action: give it as a correction")
        action, rejected = (_read(a, catalogue) for a in (feedback.action, feedback.rejected))
        if feedback.kind in ("correction", "override", "preference") and action is None:
            raise BadInput(f"a {feedback.kind} needs the right action")
        if feedback.kind == "rating" and (feedback.rating is None or not -1.0 <= feedback.rating <= 1.0):
            raise BadInput("a rating is a number from -1 to 1")
        return replace(feedback, action=action, rejected=rejected)

    async def _refuse(self, feedback: Feedback, reason: str) -> None:
        await self._journal.put(payload.quarantined_feedback(feedback, reason))
        self._metrics.quarantined.inc()
        log.warning("feedback quarantined", decision=feedback.decision_id, reason=reason)


def _read(action: Action | None, catalogue: Catalogue) -> Action | None:
    if action is None:
        return None
    if action.tool == TEXT and set(action.arguments) == {"text"}:
        return catalogue.parse(str(action.arguments["text"]))
    return catalogue.check(action)
