"""Feedback -> does the version that serves deserve it? A provisional one becomes full or is taken back, and a full one of which
people complain more than of the one before it is taken back too: by itself, and with a reason that people can read.

A provisional version and the one it has to prove itself against are both asked again, by their weights alone, about every
situation of which people said what is right. What the table answered does not count: it knows the answer; nor does what somebody
says who is not believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import msgspec
import structlog
from msgspec.structs import replace

from runtime.bus import Subscription
from runtime.catalogue import Catalogue
from runtime.errors import CorrigibleError
from runtime.journal import Journal
from runtime.learning import evidence, ladder, monitor
from runtime.learning.monitor import Trial
from runtime.messages import Action, Feedback, Lived, Release
from runtime.situations import Catalogues

log = structlog.get_logger("probation")
SETTLED = 600.0  # seconds after which a decision that nobody complained about counts as one
LOOK_BACK = 1000  # decisions of a version
ASKED = 50  # newest situations about which a full version and the one before it are asked
BACK = ("rollback", "probation", "forget")  # releases by which a version was taken back


class Scored(Protocol):
    @property
    def chosen(self) -> Action: ...


class Scorer(Protocol):
    async def score_one(self, text: str, catalogue: Catalogue, adapter: str) -> Scored: ...


class Releases(Protocol):
    """The part of `learning.releases` that carries a judgement out."""

    async def confirm(self, proven: Release, reason: str) -> Release: ...
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
        believes: evidence.Believes = evidence.everybody,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`believes` a feedback (id) and its source."""
        self._journal, self._policy, self._catalogues, self._releases = journal, policy, catalogues, releases
        self._believes, self._clock = believes, clock
        # release, decision and right action -> were it and the one before it right?
        self._compared: dict[str, tuple[bool, bool]] = {}

    async def run(self, feedbacks: Subscription[Feedback]) -> None:
        async for feedback in feedbacks:
            try:
                await self.hear(feedback)
            except CorrigibleError as error:
                log.warning("a word that could not be counted", feedback=feedback.id, reason=str(error))

    async def hear(self, feedback: Feedback) -> None:
        """Count one word for or against what serves, and act where that is enough."""
        release = await self._journal.serving()
        if release is None or release.adapter == "base" or not self._believes(feedback.id, feedback.source):
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
        trial = await self.trial(release)
        if decision.id in trial.counted or not self._believes(example.id, example.source):
            return
        right = await self._right(example.scope, example.text, example.action, release.adapter, release.against)
        trial = trial.after(*right, decision.id)
        if await self._journal.serving() != release:
            return  # another one was released while the two were asked
        await self._journal.set_metadata(ladder.TRIED, msgspec.to_builtins(trial))
        if trial.ending == "better":
            await self._releases.confirm(release, f"proven against {release.against}: {trial}")
        elif trial.ending == "worse":
            reason = f"{release.adapter} did worse than {release.against}: {trial}"
            log.warning("taken back", reason=reason)
            await self._releases.release(release.against, why="probation", reason=reason)

    async def _watch(self, release: Release) -> None:
        """Of a version that serves alone: are there more complaints than of the one before it?"""
        if release.previous in ("", release.adapter) or release.previous in await self._taken_back():
            return
        before, now = [await self._lived(adapter) for adapter in (release.previous, release.adapter)]
        complaints = [[any(map(_complains, one.said)) for one in lived] for lived in (before, now)]
        wealth = monitor.worse(*complaints)
        if wealth < monitor.TAKEN or not await self._would_do_better(release):
            return
        if await self._journal.serving() != release:
            return
        reason = (
            f"people complained about {sum(complaints[1])} of {len(now)} decisions of {release.adapter}, "
            f"and about {sum(complaints[0])} of {len(before)} of {release.previous} (e-value {wealth:.0f})"
        )
        log.warning("taken back", reason=reason)
        await self._releases.release(release.previous, why="probation", reason=reason)

    async def _taken_back(self) -> set[str]:
        """Versions that people or probation went back from: nobody goes back to them by itself."""
        pairs = pairwise(await self._journal.releases())  # newest first
        return {old.adapter for new, old in pairs if new.why in BACK and new.adapter != old.adapter}

    async def _would_do_better(self, release: Release) -> bool:
        """Would the version before have done better at what came since? When what comes in has changed, more is wrong whoever
        decides, and going back would only forget. What nobody complained about was right: who only corrects speaks of the mistakes
        of what serves alone, and by those any other version looks better."""
        self._compared = {key: right for key, right in self._compared.items() if key.startswith(release.id)}
        trial = Trial(release=release.id)
        try:
            for one in (await self._lived(release.adapter, release.at))[-ASKED:]:
                _, right = evidence.earned(one.action, one.said) if one.said else (1.0, one.action)
                if right is not None:
                    trial = trial.after(*await self._compare(release, one, right))
        except CorrigibleError as error:
            log.warning("the version before cannot be asked", adapter=release.previous, reason=str(error))
            return False
        return trial.ending == "worse"

    async def _compare(self, release: Release, one: Lived, right: Action) -> tuple[bool, bool]:
        key = f"{release.id} {one.id} {msgspec.json.encode(right).decode()}"
        if key not in self._compared:
            self._compared[key] = await self._right(one.scope, one.text, right, release.adapter, release.previous)
        return self._compared[key]

    async def _right(self, scope: str, text: str, right: Action, *adapters: str) -> tuple[bool, bool]:
        """Whether each of two versions, by its weights alone, does what is right."""
        catalogue = self._catalogues.of(scope)
        first, second = [
            (await self._policy.score_one(text, catalogue, adapter)).chosen == right for adapter in adapters
        ]
        return first, second

    async def _lived(self, adapter: str, since: float = 0.0) -> list[Lived]:
        """What a version decided, with the words that are believed."""
        found = await self._journal.lived(adapter, since=since, settled=self._clock() - SETTLED, limit=LOOK_BACK)
        return [
            replace(one, said=tuple(word for word in one.said if self._believes(word.id, word.source))) for one in found
        ]


def _complains(feedback: Feedback) -> bool:
    return feedback.kind in ("correction", "override") or (feedback.rating is not None and feedback.rating < 0)
