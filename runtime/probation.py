"""Feedback -> does the version that serves deserve it? A provisional one becomes full or is taken back, and a full one of which
people complain more than of the one before it is taken back too: by itself, and with a reason that people can read.

A provisional version and the one it has to prove itself against are both asked again, by their weights alone, about every
situation of which people said what is right. What the table answered does not count: it knows the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from runtime.bus import Subscription
from runtime.catalogue import Catalogue
from runtime.errors import CorrigibleError
from runtime.journal import Journal
from runtime.learning import ladder, monitor
from runtime.learning.monitor import Trial
from runtime.messages import Action, Example, Feedback, Release
from runtime.situations import Catalogues

log = structlog.get_logger("probation")
SETTLED = 600.0  # seconds after which a decision that nobody complained about counts as one
LOOK_BACK = 1000  # decisions of a version
ASKED = 50  # newest judged situations about which a full version and the one before it are asked


class Scored(Protocol):
    @property
    def chosen(self) -> Action: ...


class Scorer(Protocol):
    async def score_one(self, text: str, catalogue: Catalogue, adapter: str) -> Scored: ...


class Releases(Protocol):
    """The part of `learning.releases` that carries a judgement out."""

    async def confirm(self, reason: str) -> Release: ...
    async def release(self, adapter: str, *, why: str, reason: str = "") -> Release: ...


class Probation:
    """The stage. What it knows is in the journal, so it goes on where it was after a restart."""

    def __init__(
        self,
        journal: Journal,
        policy: Scorer,
        catalogues: Catalogues,
        releases: Releases,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._policy, self._catalogues, self._releases = journal, policy, catalogues, releases
        self._clock = clock
        self._compared: dict[
            str, tuple[bool, bool]
        ] = {}  # release and feedback -> were it and the one before it right?

    async def run(self, feedbacks: Subscription[Feedback]) -> None:
        async for feedback in feedbacks:
            try:
                await self.hear(feedback)
            except CorrigibleError as error:
                log.warning("a word that could not be counted", feedback=feedback.id, reason=str(error))

    async def hear(self, feedback: Feedback) -> None:
        """Count one word for or against what serves, and act where that is enough."""
        release = await self._journal.serving()
        if release is None or release.adapter == "base":
            return
        if release.provisional and release.against:
            await self._try(release, feedback)
        elif _complains(feedback):
            await self._watch(release)

    async def trial(self, release: Release) -> Trial:
        """As far as the trial of this release has come."""
        return await ladder.tried(self._journal, release, await ladder.watched(self._journal, release))

    async def _try(self, release: Release, feedback: Feedback) -> None:
        decision = await self._journal.decision(feedback.decision_id)
        example = await self._journal.example_on(feedback.decision_id)
        if decision is None or example is None or decision.by == "table":
            return
        if decision.at < max(release.at, (await ladder.watched(self._journal, release)).over):
            return
        if len(await self._journal.feedback_of(decision.id)) > 1:
            return  # it was counted when the first word came
        trial = (await self.trial(release)).after(*await self._right(example, release.adapter, release.against))
        await self._journal.set_metadata(ladder.TRIED, msgspec.to_builtins(trial))
        if trial.ending == "better":
            await self._releases.confirm(f"proven against {release.against}: {trial}")
        elif trial.ending == "worse":
            reason = f"{release.adapter} did worse than {release.against}: {trial}"
            log.warning("taken back", reason=reason)
            await self._releases.release(release.against, why="probation", reason=reason)

    async def _watch(self, release: Release) -> None:
        """Of a version that serves alone: are there more complaints than of the one before it?"""
        if not release.previous or release.previous == release.adapter:
            return
        before, now = await self._complaints(release.previous), await self._complaints(release.adapter)
        wealth = monitor.worse(before, now)
        if wealth < monitor.TAKEN or not await self._would_do_better(release):
            return
        reason = (
            f"people complained about {sum(now)} of {len(now)} decisions of {release.adapter}, "
            f"and about {sum(before)} of {len(before)} of {release.previous} (e-value {wealth:.0f})"
        )
        log.warning("taken back", reason=reason)
        await self._releases.release(release.previous, why="probation", reason=reason)

    async def _would_do_better(self, release: Release) -> bool:
        """Would the version before have done better at what people judged since? When what comes in has changed, more is wrong
        whoever decides, and going back would only forget. Where that one cannot be asked, the complaints decide."""
        self._compared = {key: right for key, right in self._compared.items() if key.startswith(release.id)}
        trial = Trial(release=release.id)
        try:
            for example in await self._journal.examples(ASKED):
                if example.at >= release.at:
                    trial = trial.after(*await self._compare(release, example))
        except CorrigibleError:
            return True
        return trial.ending == "worse"

    async def _compare(self, release: Release, example: Example) -> tuple[bool, bool]:
        key = f"{release.id} {example.id}"
        if key not in self._compared:
            self._compared[key] = await self._right(example, release.adapter, release.previous)
        return self._compared[key]

    async def _right(self, example: Example, *adapters: str) -> tuple[bool, bool]:
        """Whether each of two versions, by its weights alone, does what people said is right."""
        catalogue = self._catalogues.of(example.scope)
        first, second = [
            (await self._policy.score_one(example.text, catalogue, adapter)).chosen == example.action
            for adapter in adapters
        ]
        return first, second

    async def _complaints(self, adapter: str) -> list[bool]:
        return await self._journal.complaints(adapter, settled=self._clock() - SETTLED, limit=LOOK_BACK)


def _complains(feedback: Feedback) -> bool:
    return feedback.kind in ("correction", "override") or (feedback.rating is not None and feedback.rating < 0)
