"""Decisions of one version -> what the other one would have done: a candidate is watched in silence before it takes part.

Whoever decided, the other of the two is asked about the same situation in the policy's spare time (a live decision overtakes
it), and what it says is only counted; it never acts. After `Release.shadow` situations the candidate gets its share.

While both share the decisions, the chance of an action is that of both together: where they agree it is as if one had decided,
where they differ it is the share of the one whose turn it was. That is noted for `learning.offpolicy`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from runtime.bus import Subscription
from runtime.catalogue import Catalogue
from runtime.errors import CorrigibleError
from runtime.journal import Journal
from runtime.learning import ladder
from runtime.learning.evidence import CHANCES
from runtime.learning.trust import Trust
from runtime.messages import Action, Decision, Percept, Release
from runtime.situations import Catalogues

log = structlog.get_logger("shadow")
KEPT = 300  # chances of shared decisions, the newest


class Scorer(Protocol):
    async def score(
        self, texts: Sequence[str], catalogue: Catalogue, adapter: str, *, feature: bool = False
    ) -> Sequence[Any]: ...


class Believer(Protocol):
    def would(self, percept: Percept, row: Any, adapter: str, trusted: Trust, action: Action) -> float: ...


class Pair(Protocol):
    """The two versions that share the decisions."""

    share: float

    def other(self, adapter: str) -> tuple[str, Trust] | None: ...
    def chance(self, adapter: str) -> float: ...


class Releases(Protocol):
    """The part of `learning.releases` that lets a candidate take part."""

    def take_part(self, release: Release) -> None: ...


class Shadowing:
    """The stage. What it knows is in the journal, so it goes on where it was after a restart."""

    def __init__(
        self,
        journal: Journal,
        policy: Scorer,
        catalogues: Catalogues,
        serving: Pair,
        decider: Believer,
        releases: Releases,
        *,
        feature: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`feature`: the memory joins the decisions."""
        self._journal, self._policy, self._catalogues = journal, policy, catalogues
        self._serving, self._decider, self._releases = serving, decider, releases
        self._feature, self._clock = feature, clock

    async def run(self, decisions: Subscription[Decision]) -> None:
        async for decision in decisions:
            try:
                await self.watch(decision)
            except CorrigibleError as error:
                log.warning("the other version could not be asked", decision=decision.id, reason=str(error))

    async def watch(self, decision: Decision) -> None:
        """Ask the other version, count, and let the candidate take part when it was watched long enough."""
        other = self._serving.other(decision.adapter)
        if other is None or decision.by not in ("model", "memory"):
            return
        release, percept = await self._journal.serving(), await self._journal.percept(decision.percept_id)
        if release is None or decision.at < release.at or percept is None or percept.synthetic:
            return
        own = self._serving.chance(decision.adapter)
        would = await self._would(percept, *other, decision.actions[0])
        before = await ladder.watched(self._journal, release)
        same = math.isclose(would, decision.p_behaviour)
        watch = before.after(same, self._clock(), release.shadow)
        await self._journal.set_metadata(ladder.WATCHED, msgspec.to_builtins(watch))
        if ladder.rung(release, before) == "shadow":
            if ladder.rung(release, watch) != "shadow":
                self._releases.take_part(release)
        elif not same and 0.0 < own < 1.0 and decision.at >= before.over:
            await self._note(decision.id, own * decision.p_behaviour + (1.0 - own) * would)

    async def _would(self, percept: Percept, adapter: str, trusted: Trust, action: Action) -> float:
        """The chance with which this version would have chosen the action."""
        catalogue = self._catalogues.of(percept.scope)
        (row,) = await self._policy.score([percept.text], catalogue, adapter, feature=self._feature)
        return self._decider.would(percept, row, adapter, trusted, action)

    async def _note(self, decision: str, chance: float) -> None:
        found: list[tuple[str, float]] = await self._journal.metadata(CHANCES) or []
        await self._journal.set_metadata(CHANCES, [*found, (decision, chance)][-KEPT:])
