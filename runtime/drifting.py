"""Feedback, Decision -> have people's habits changed, or what comes in? Then the learner need not wait for its count or hour.

Two rows are watched: whether people corrected a decision (the journal has it), and whether its situation was more unfamiliar to
the memory than those before it. What was found is in the journal, so that a restart does not forget that a cycle is due.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec
import structlog

from runtime.bus import Subscription
from runtime.journal import Journal
from runtime.learning import drift
from runtime.learning.drift import Rise
from runtime.messages import Decision, Feedback, Message
from runtime.metrics import Metrics

log = structlog.get_logger("drift")
KEY = "drift"  # the journal's note of the last change
LOOK_BACK = 1000  # decisions
RECENT = 100  # situations that a new one is compared with


class Changed(Message, frozen=True, kw_only=True):
    """What was found last. What was decided before `at` is not looked at again."""

    of: Literal["corrections", "novelty"]
    at: float
    reason: str


class Pupil(Protocol):
    """The part of the learner that is told."""

    def drifted(self, reason: str) -> None: ...


class Drifting:
    """The stage."""

    def __init__(
        self, journal: Journal, learner: Pupil, metrics: Metrics, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._journal, self._learner, self._metrics, self._clock = journal, learner, metrics, clock
        self._since = 0.0
        self._novelty: deque[float] = deque(maxlen=RECENT)
        self._strange: deque[bool] = deque(maxlen=LOOK_BACK)  # whether it was newer than nine of ten of those

    async def run(self, messages: Subscription[Decision | Feedback]) -> None:
        await self.restore()
        async for message in messages:
            await self.hear(message)

    async def restore(self) -> None:
        """As the journal has it. A change that no cycle has seen yet is told again."""
        found = await self._journal.metadata(KEY)
        if found is not None:
            last = msgspec.convert(found, Changed)
            self._since = last.at
            if last.at > await self._journal.learnt_at():
                self._learner.drifted(last.reason)
        for decision in reversed(await self._journal.decisions(LOOK_BACK)):
            self._note(decision)

    async def hear(self, message: Decision | Feedback) -> None:
        """Decisions are noted. It is when people speak that one looks: without them there is nothing to learn."""
        if isinstance(message, Decision):
            return self._note(message)
        corrected = await self._journal.corrected(since=self._since, limit=LOOK_BACK)
        if (rise := drift.rise(corrected)) is not None:
            reason = f"what people say changed: {_figures(rise, 'corrected')}"
            return await self._found(Changed(of="corrections", at=self._clock(), reason=reason))
        if (rise := drift.rise(tuple(self._strange))) is not None:
            reason = f"what comes in changed: {_figures(rise, 'situations were unfamiliar')}"
            return await self._found(Changed(of="novelty", at=self._clock(), reason=reason))
        return None

    def _note(self, decision: Decision) -> None:
        if decision.novelty is None or decision.note:
            return
        if decision.at > self._since:
            self._strange.append(drift.stands_out(decision.novelty, self._novelty))
        self._novelty.append(decision.novelty)

    async def _found(self, changed: Changed) -> None:
        """Begin to count anew, and let it be learnt from."""
        await self._journal.set_metadata(KEY, msgspec.to_builtins(changed))
        self._since = changed.at
        self._strange.clear()
        self._metrics.drifts.labels(changed.of).inc()
        log.info("drift", of=changed.of, reason=changed.reason)
        self._learner.drifted(changed.reason)


def _figures(rise: Rise, what: str) -> str:
    return f"{100 * rise.now:.0f} % of the last {rise.of} {what}, before {100 * rise.before:.0f} %"
