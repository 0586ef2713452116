"""Decision -> proof of its causes: what would have been decided had those lessons never been taught?

The named causes are the lessons that carry most of what the memory says for the action. They are left out of the lessons that
the deciding weights were taught by, weights are trained again in a job apart, the memory is made again without them, and
both are asked. What serves and what learns are not touched.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from runtime.catalogue import Catalogue
from runtime.contrast import contrast, unknown
from runtime.doubting import Doubts
from runtime.errors import CorrigibleError, NotFound, Unavailable
from runtime.explaining import LIVE, Explaining, Voice, believed
from runtime.journal import Journal
from runtime.learning import curation, duplicates
from runtime.learning.apart import Apart
from runtime.learning.learner import Learner
from runtime.learning.memory import CAUSES, Lesson, Memory
from runtime.learning.registry import Registry
from runtime.learning.trust import Belief, Trust
from runtime.lending import Policy, lent
from runtime.messages import Decision, Example
from runtime.remembering import Remembering
from runtime.situations import Catalogues

log = structlog.get_logger("proof")
NAMED = 0.99  # of what the memory says for an action is carried by the causes that are named
ALL = 64  # strongest lessons among which those that were taught in time are looked for
KEPT = 16  # proofs that are kept
Weights = tuple[Path | None, tuple[float, ...]]  # directory (None = the base model), and what it answers to the probes


def named(causes: Sequence[tuple[Lesson, float]]) -> list[Lesson]:
    """The strongest lessons that together carry NAMED of all that speaks for the action among `causes` (strongest first)."""
    wanted, carried, found = NAMED * sum(part for _, part in causes if part > 0), 0.0, list[Lesson]()
    for lesson, part in causes:
        if part <= 0 or carried >= wanted:
            break
        carried += part
        found.append(lesson)
    return found


@dataclass
class Proof:
    """How far one is. `found` is what it says in the end."""

    decision: str
    state: str = "running"  # running, done, failed
    step: str = "waits for its turn"
    progress: float = 0.0  # in [0, 1]
    why: str = ""  # it failed
    found: dict[str, Any] = field(default_factory=dict)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def told(self) -> dict[str, Any]:
        return {
            "decision_id": self.decision, "state": self.state, "step": self.step, "progress": self.progress,
            "why": self.why, **self.found,
        }  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One of the two worlds that are compared."""

    adapter: str  # the name to score with
    memory: Memory | None
    catalogue: Catalogue
    version: str = ""  # the deciding version, where it is that one itself: it has no vote on what it was never taught


class Counterfactuals:
    """`ask` puts a proof in the queue; `run` makes one after the other."""

    def __init__(
        self, journal: Journal, policy: Policy, catalogues: Catalogues, store: Registry, explaining: Explaining,
        remembering: Remembering, doubts: Doubts, learner: Learner, apart: Apart, *, memory: bool,
    ) -> None:  # fmt: skip
        """`memory`: it takes part in decisions."""
        self._journal, self._policy, self._catalogues, self._store = journal, policy, catalogues, store
        self._explaining, self._remembering, self._doubts = explaining, remembering, doubts
        self._learner, self._apart, self._memory = learner, apart, memory
        self._queue: asyncio.Queue[tuple[Proof, Decision]] = asyncio.Queue()
        self._proofs: OrderedDict[str, Proof] = OrderedDict()

    def ask(self, decision: Decision) -> dict[str, Any]:
        """Begin, unless it is under way. Raises Unavailable if too many wait already."""
        proof = self._proofs.get(decision.id)
        if proof is None or proof.state != "running":
            if self._queue.qsize() >= KEPT // 2:
                raise Unavailable(f"{self._queue.qsize()} proofs wait already; ask again when some of them are over")
            proof = self._proofs[decision.id] = Proof(decision.id)
            self._queue.put_nowait((proof, decision))
            while len(self._proofs) > KEPT:
                self._proofs.popitem(last=False)
        return proof.told()

    def told(self, decision: str) -> dict[str, Any]:
        """How far the proof of a decision is. Raises NotFound if nobody asked for it."""
        if decision not in self._proofs:
            raise NotFound(
                f"nobody asked for a proof of {decision!r} lately; `corrigible explain {decision} --prove` does"
            )
        return self._proofs[decision].told()

    async def until_over(self, decision: str) -> dict[str, Any]:
        """Wait for the end of a proof that was asked for."""
        await self._proofs[decision].over.wait()
        return self.told(decision)

    async def run(self) -> None:
        while True:
            proof, decision = await self._queue.get()
            try:
                proof.found = await self.prove(decision, proof)
                proof.state, proof.progress = "done", 1.0
            except Exception as error:  # a question must not end the daemon, whatever goes wrong
                told = str(error) if isinstance(error, CorrigibleError) else f"{type(error).__name__}: {error}"
                proof.state, proof.why = "failed", told
            proof.over.set()
            log.info("proof", decision=decision.id, state=proof.state, why=proof.why)

    async def prove(self, decision: Decision, proof: Proof) -> dict[str, Any]:
        """Raises NotFound if nothing was taught that speaks for the action, Unavailable if the training fails."""
        percept = await self._journal.percept(decision.percept_id)
        if percept is None:
            raise NotFound(f"the situation of decision {decision.id} is not in the journal")
        taught = await self.taught(decision)
        causes = await self.causes(decision, percept.text, taught)
        if not causes:
            raise NotFound(
                "nothing that people taught before it speaks for this decision, so there is nothing to leave out"
            )
        voice, gone = self._explaining.voice(decision.adapter), frozenset(lesson.id for lesson in causes)
        async with AsyncExitStack() as stack:
            sides = await self.sides(stack, decision, voice, taught, gone, proof)
            before, after = [await self.asked(side, decision.scope, percept.text, voice.trusted) for side in sides]
        return {
            "adapter": voice.adapter,
            "note": voice.note or _other_now(decision, before[1], sides[0].catalogue),
            "removed": [{"feedback_id": lesson.id, "text": lesson.text} for lesson in causes],
            **contrast(before, after, sides[0].catalogue, decision if decision.by == "table" else None),
        }

    async def taught(self, decision: Decision) -> list[Example]:
        """What had been taught, and is believed, when it was decided."""
        words = await self._journal.words((await self._learner.recipe()).window, False)
        return [e for e in words if e.at <= decision.at and self._doubts.believes(e.id, e.source)]

    async def causes(self, decision: Decision, text: str, taught: Sequence[Example]) -> list[Lesson]:
        """The named causes among what had been taught; the correction in the table, if that answered, first of all."""
        found = await self._remembering.causes(decision.scope, text, decision.actions[0], ALL)
        known = {example.id for example in taught}
        inside = named([(lesson, part) for lesson, part in found if lesson.id in known][:CAUSES])
        table = [lesson for lesson, _ in found if lesson.id == decision.table_feedback and lesson not in inside]
        return [*table, *inside]

    async def sides(
        self, stack: AsyncExitStack, decision: Decision, voice: Voice, taught: Sequence[Example], gone: frozenset[str],
        proof: Proof,
    ) -> tuple[Side, Side]:  # fmt: skip
        """With and without the causes, ready to be asked inside the stack."""
        left = [example for example in taught if example.id not in gone]
        weights = await self._weights(stack, decision, voice, taught, gone, proof)
        names = [await stack.enter_async_context(lent(self._policy, *one)) for one in weights]
        catalogue = self._catalogues.of(decision.scope)
        memories = [await self._remembered(examples) for examples in (taught, left)]
        return (
            Side(names[0], memories[0], catalogue, voice.adapter if weights[0][0] == voice.directory else ""),
            Side(names[1], memories[1], unknown(catalogue, decision.scope, taught, left)),
        )

    async def _remembered(self, examples: Sequence[Example]) -> Memory | None:
        return await self._remembering.only({example.id for example in examples}) if self._memory else None

    async def _weights(
        self, stack: AsyncExitStack, decision: Decision, voice: Voice, taught: Sequence[Example], gone: frozenset[str],
        proof: Proof,
    ) -> tuple[Weights, Weights]:  # fmt: skip
        """(directory, fingerprint) with and without the causes. The deciding version itself is the one side if it can be
        made again: from the same lessons by the present recipe. Else both are trained."""
        own = voice.directory, voice.fingerprint
        if voice.directory is None:
            return own, own
        lineage = set(self._store.manifest(voice.adapter).lineage)
        words = [e for e in taught if e.id in lineage] if voice.adapter == decision.adapter else taught
        lessons = curation.weighed(duplicates.merged(words), await self._learner.recipe(), self._doubts.trust)
        left = [example for example in lessons if gone.isdisjoint((example.id, *example.also))]
        if len(left) == len(lessons):
            return own, own  # these weights were never taught the causes: it is the memory's doing
        if not await self._same_recipe(voice.adapter, {id for e in lessons for id in (e.id, *e.also)}):
            own = await self._trained(stack, lessons, "trains with the causes", proof, 0.0, 0.5)
        begun = 0.5 if own[0] != voice.directory else 0.0
        return own, await self._trained(stack, left, "trains without the causes", proof, begun, 1.0)

    async def _same_recipe(self, adapter: str, lessons: Collection[str]) -> bool:
        manifest, recipe = self._store.manifest(adapter), await self._learner.recipe()
        wanted = {key: value for key, value in recipe.model_dump(mode="json").items() if key not in ("epochs", "tune")}
        same = all(manifest.parameters.get(key) == value for key, value in wanted.items())
        return same and set(manifest.lineage) == set(lessons)

    async def _trained(
        self, stack: AsyncExitStack, lessons: Sequence[Example], step: str, proof: Proof, begin: float, end: float
    ) -> Weights:
        if not lessons:
            return None, ()  # nothing is left: the base model

        def tell(progress: float) -> None:
            proof.progress = begin + progress * (end - begin)

        proof.step = step
        made = await stack.enter_async_context(self._apart.trained(lessons, tell))
        return made.directory, made.fingerprint

    async def asked(self, side: Side, scope: str, text: str, trusted: Trust) -> tuple[Belief, Belief]:
        """What the weights alone say, and both together."""
        (row,) = await self._policy.score([text], side.catalogue, side.adapter, floor=LIVE, feature=True)
        return believed(scope, row, None, trusted), believed(scope, row, side.memory, trusted, side.version)


def _other_now(decision: Decision, belief: Belief, catalogue: Catalogue) -> str:
    """Where what was taught in time would lead elsewhere by now, the comparison begins there."""
    if decision.by == "table" or belief.chosen == decision.actions[0]:
        return ""
    return f"asked again with all that was taught by then, it chooses {catalogue.render(belief.chosen)}"
