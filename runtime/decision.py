"""Percept -> Decision: the table if this exact situation was corrected before, else model and memory together; order kept
within a scope.

The adapter is read once per decision and handed to the scoring call, so a release never lands inside a decision.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from runtime.asking import Asking, Doubt
from runtime.bus import Bus, Subscription
from runtime.catalogue import Catalogue
from runtime.config import PolicyConfig
from runtime.errors import CorrigibleError
from runtime.journal import Journal
from runtime.learning import trust
from runtime.learning.memory import Floats, Memory, unpacked
from runtime.learning.trust import Belief, Trust
from runtime.messages import NOTHING, Action, Candidate, Decision, Percept, derived_id, portion
from runtime.metrics import Metrics
from runtime.situations import Catalogues
from runtime.table import CorrectionTable

log = structlog.get_logger("decision")
SCOPE_QUEUE = 256  # percepts a scope may be behind before perception waits
WRITTEN = math.log(0.5)  # of a new reply where known ones compete: how likely its words are says nothing beside them
STALE = 600.0  # seconds after which a situation is past, and nothing is done about it


class Scored(Protocol):
    """What the policy answers for one text."""

    @property
    def actions(self) -> list[Action]: ...
    @property
    def log_probs(self) -> list[float]: ...
    @property
    def chosen(self) -> Action: ...
    @property
    def log_p(self) -> float: ...
    @property
    def feature(self) -> bytes: ...


class Scorer(Protocol):
    async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Scored: ...


class Serving:
    """The pointer that a release flips: which adapter the next decision uses, and how far that one is trusted.

    While a provisional version has to prove itself `against` another, the two share the decisions: by halves, what people
    correct on either side is a fair comparison. Before that, in shadow, its share is none.
    """

    def __init__(self, adapter: str) -> None:
        self.adapter = adapter
        self.trust: Trust = trust.BASE
        self.against: tuple[str, Trust] | None = None
        self.share = 1.0  # of the decisions that are `adapter`'s

    @property
    def deciding(self) -> str:
        """The version to measure others by: not one that is only asked in silence."""
        return self.against[0] if self.against is not None and not self.share else self.adapter

    def other(self, adapter: str) -> tuple[str, Trust] | None:
        """Who would have decided instead of this one, while two share the decisions."""
        if self.against is None or adapter not in (self.adapter, self.against[0]):
            return None
        return self.against if adapter == self.adapter else (self.adapter, self.trust)

    def chance(self, adapter: str) -> float:
        """That this one of the two decides, before the percept's id is known."""
        return self.share if adapter == self.adapter else 1.0 - self.share

    def choose(self, percept: str) -> tuple[str, Trust]:
        """Who decides on this percept (id): the same whenever it is asked."""
        if self.against is None or portion(percept) < self.share:
            return self.adapter, self.trust
        return self.against


class Decider:
    """The stage: one worker coroutine per scope, so scopes run side by side and each keeps its order."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        policy: Scorer,
        catalogues: Catalogues,
        table: CorrectionTable,
        serving: Serving,
        config: PolicyConfig,
        metrics: Metrics,
        *,
        memory: Memory | None = None,
        seen: Callable[[str, str, Floats], None] = lambda scope, text, feature: None,
        clock: Callable[[], float] = time.time,
        seed: int = 0,
    ) -> None:
        """`seen` is told what every situation is like: feedback on it may come."""
        self._journal = journal
        self._bus = bus
        self._policy = policy
        self._catalogues = catalogues
        self._table = table
        self._serving = serving
        self._config = config
        self._metrics = metrics
        self._memory = memory
        self._seen = seen
        self._clock = clock
        self._random = random.Random(seed)
        self._asking = Asking(config)
        self._queues: dict[str, asyncio.Queue[Percept]] = {}
        self.table_on = config.table
        self.memory_on = config.memory and memory is not None
        self.awake = asyncio.Event()  # what serves is loaded; until then only the table answers
        self.awake.set()
        self.busy = 0  # decisions being made now
        self.last_at = clock()

    async def run(self, percepts: Subscription[Percept]) -> None:
        async with asyncio.TaskGroup() as group:
            async for percept in percepts:
                queue = self._queues.get(percept.scope)
                if queue is None:
                    queue = self._queues[percept.scope] = asyncio.Queue(SCOPE_QUEUE)
                    group.create_task(self._serve(queue), name=f"decide {percept.scope}")
                await queue.put(percept)

    @property
    def backlog(self) -> int:
        return self.busy + sum(queue.qsize() for queue in self._queues.values())

    async def _serve(self, queue: asyncio.Queue[Percept]) -> None:
        while True:
            percept = await queue.get()
            self.busy += 1
            try:
                decision = await self.decide(percept)
                if await self._journal.put(decision, patient=True):
                    await self._bus.publish(decision)
            finally:
                self.busy -= 1
                self.last_at = self._clock()

    async def decide(self, percept: Percept) -> Decision:
        """The decision, not yet committed. Never raises for what the model or its worker does: it falls back."""
        started = time.perf_counter()
        catalogue = self._catalogues.of(percept.scope)
        adapter, trusted = self._serving.choose(percept.id)
        if (age := self._clock() - percept.at) > STALE:
            return self._decision(percept, NOTHING, adapter, started, by="fallback", note=f"{age:.0f} s old: too late")
        hit = self._table.lookup(percept) if self.table_on and not percept.synthetic else None
        if hit is not None and catalogue.allows(hit[0]):
            return self._decision(percept, hit[0], adapter, started, by="table", table_feedback=hit[1])
        try:
            async with asyncio.timeout(STALE - max(age, 0.0)):  # what has waited longer must not be acted on
                await self.awake.wait()
            adapter, trusted = self._serving.choose(percept.id)
            async with asyncio.timeout(self._config.timeout):
                row = await self._policy.score_one(percept.text, catalogue, adapter, feature=self._memory is not None)
        except Exception as error:  # the border to the model: whatever happens behind it, the loop goes on
            self._metrics.fallbacks.inc()
            reason = _reason(error)
            log.warning("fell back to nothing", scope=percept.scope, error=reason)
            return self._decision(percept, NOTHING, adapter, started, by="fallback", note=reason)
        belief = self.believe(percept.scope, percept.text, row, trusted, adapter)
        doubt = self._asking.doubt(percept, belief, trusted.knowing)
        if doubt.instead is not None:
            p = math.exp(belief.log_both[belief.best])
            return self._decision(
                percept,
                doubt.instead,
                adapter,
                started,
                by="doubt",
                p_model=p,
                candidates=_candidates(belief),
                doubt=doubt,
                novelty=_novelty(belief),
            )
        action, p_behaviour = self._explore(row.actions, belief)
        return self._decision(
            percept,
            action,
            adapter,
            started,
            by="model" if belief.chosen == row.chosen else "memory",
            doubt=doubt,
            p_model=math.exp(belief.log_both[belief.actions.index(action)]),
            p_behaviour=p_behaviour,
            candidates=_candidates(belief),
            novelty=_novelty(belief),
        )

    def believe(self, scope: str, text: str, row: Scored, trusted: Trust, adapter: str) -> Belief:
        """What the model says (under an adapter), and with it what the memory says of a situation like this one."""
        actions, log_probs = considered(row)
        recalled = None
        if self._memory is not None and row.feature:
            feature = unpacked(row.feature)
            self._seen(scope, text, feature)
            recalled = self._memory.recall(scope, feature, adapter) if self.memory_on else None
        return trust.believe(actions, log_probs, recalled, trusted)

    def _explore(self, offered: Sequence[Action], belief: Belief) -> tuple[Action, float]:
        """Greedy, except with chance `explore` among the declared tools; and the chance of what was chosen."""
        among = self._among(offered, belief)
        if not among:
            return belief.chosen, 1.0
        explored = self._random.random() < self._config.explore
        action = self._random.choice(among) if explored else belief.chosen
        return action, self._chance(action, among, belief)

    def _among(self, offered: Sequence[Action], belief: Belief) -> list[Action]:
        """What may be tried instead of what is believed; empty = nothing."""
        among = [action for action in offered if action.tool in self._config.explore_among]
        return among if self._config.explore and len(among) >= 2 and belief.chosen in among else []

    def _chance(self, action: Action, among: Sequence[Action], belief: Belief) -> float:
        if not among:
            return float(action == belief.chosen)
        rate = self._config.explore
        uniform = rate / len(among) if action in among else 0.0
        return uniform + (1.0 - rate if action == belief.chosen else 0.0)

    def would(self, percept: Percept, row: Scored, adapter: str, trusted: Trust, action: Action) -> float:
        """The chance with which a version (`adapter`) that says `row` would have chosen this action."""
        belief = self.believe(percept.scope, percept.text, row, trusted, adapter)
        return self._chance(action, self._among(row.actions, belief), belief)

    def _decision(
        self,
        percept: Percept,
        action: Action,
        adapter: str,
        started: float,
        *,
        by: str,
        p_model: float | None = None,
        p_behaviour: float = 1.0,
        candidates: tuple[Candidate, ...] = (),
        doubt: Doubt | None = None,
        novelty: float | None = None,
        table_feedback: str | None = None,
        note: str = "",
    ) -> Decision:
        seconds = time.perf_counter() - started
        self._metrics.decided(by, seconds)
        return Decision(
            id=derived_id("dc", percept.id),
            percept_id=percept.id,
            scope=percept.scope,
            actions=(action,),
            by=by,  # type: ignore[arg-type]
            adapter=adapter,
            p_model=p_model,
            p_behaviour=p_behaviour,
            candidates=candidates,
            novelty=novelty,
            chance=doubt.chance if doubt else None,
            plausible=doubt.plausible if doubt else (),
            choices=doubt.choices if doubt else (),
            table_feedback=table_feedback,
            timings_ms={"decide": round(seconds * 1000, 3)},
            note="rehearsal" if percept.synthetic else note,
            at=self._clock(),
        )


def considered(row: Scored) -> tuple[list[Action], list[float]]:
    """The candidates and their log-probabilities, with what the model wrote itself rather than pick what is known."""
    if row.chosen in row.actions:
        return row.actions, row.log_probs
    known = [log_p + WRITTEN for log_p in row.log_probs]
    return [*row.actions, row.chosen], [*known, WRITTEN if known else row.log_p]


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the policy took too long"
    return str(error) if isinstance(error, CorrigibleError) else f"{type(error).__name__}: {error}"


def _novelty(belief: Belief) -> float | None:
    return belief.novelty if belief.log_memory else None


def _candidates(belief: Belief) -> tuple[Candidate, ...]:
    memory = belief.log_memory or (None,) * len(belief.actions)
    return tuple(
        Candidate(action=action, log_model=model, log_memory=remembered, log_both=both)
        for action, model, remembered, both in zip(
            belief.actions, belief.log_model, memory, belief.log_both, strict=True
        )
    )
