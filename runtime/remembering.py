"""Feedback -> memory: every answer that people gave is remembered by what its situation is like, as soon as it is committed.

The memory lives in the daemon and is made anew from the journal at every start: decisions flow meanwhile, with what has
been remembered so far.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import Protocol

import structlog

from runtime.bus import Subscription
from runtime.catalogue import Catalogue
from runtime.errors import CorrigibleError
from runtime.journal import Journal
from runtime.learning import disputes
from runtime.learning.duplicates import canonical
from runtime.learning.memory import CAUSES, Floats, Lesson, Memory, unpacked
from runtime.learning.registry import Manifest
from runtime.messages import Action, Example, Feedback
from runtime.situations import Catalogues

log = structlog.get_logger("memory")
SEEN = 4096  # situations whose features are kept for feedback to come
PART = 64  # lessons that are looked at together at the start


class Looker(Protocol):
    """The part of the policy that says what situations are like."""

    async def look(self, texts: Sequence[str], catalogue: Catalogue) -> list[bytes]: ...


class Remembering:
    """The stage that keeps the memory up to date. `seen` is told by decisions, so that nothing is looked at twice."""

    def __init__(
        self,
        journal: Journal,
        policy: Looker,
        catalogues: Catalogues,
        memory: Memory,
        *,
        window: int,
        weigh: Callable[[Example], float] = lambda example: example.weight,
    ) -> None:
        """`weigh` says what a lesson counts."""
        self._journal, self._policy, self._catalogues = journal, policy, catalogues
        self._memory, self._window, self._weigh = memory, window, weigh
        self._seen: OrderedDict[tuple[str, str], Floats] = OrderedDict()
        self._changed = asyncio.Condition()
        self._begun = asyncio.Event()  # what the journal has was remembered, or could not be
        self._turn = asyncio.Lock()  # one change at a time
        self._live = False  # it runs; before, and with the daemon down, there is nothing to find again
        self._due = False  # a restore that has not begun yet
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_dispute: Callable[[], Awaitable[None]] = _nobody  # told when people want different things

    async def until_begun(self) -> None:
        """Wait until what the journal has is remembered after a start."""
        await self._begun.wait()

    async def until_known(self, scope: str, text: str) -> None:
        """Wait until something is remembered of this very situation."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._memory.knows(scope, text))

    async def _tell(self) -> None:
        """Whoever waits looks again."""
        async with self._changed:
            self._changed.notify_all()

    def seen(self, scope: str, text: str, feature: Floats) -> None:
        self._seen[scope, text] = feature
        self._seen.move_to_end((scope, text))
        while len(self._seen) > SEEN:
            self._seen.popitem(last=False)

    async def run(self, feedbacks: Subscription[Feedback]) -> None:
        """Everything from the journal, then what people say from now on."""
        self._live = True
        try:
            await self.restore()
        except CorrigibleError as error:
            log.error("nothing is remembered", reason=str(error))
        self._begun.set()
        async for feedback in feedbacks:
            try:
                await self.learn(feedback)
            except CorrigibleError as error:
                log.error("not remembered", feedback=feedback.id, reason=str(error))

    def forget(self, feedback: Sequence[str]) -> None:
        """Feedback was taken back: it is forgotten at once; what was said before it is found again in the background."""
        known = any(one in self._memory for one in feedback)
        self._memory.forget(feedback)
        if known or self._live:  # an older word may stand now, and a restore that is under way may have read this one
            self.again()

    def again(self) -> None:
        """Remember anew what the journal has, in the background."""
        if self._due:
            return
        self._due = True
        task = asyncio.create_task(self._again(), name="remember again")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again(self) -> None:
        try:
            async with self._turn:
                self._due = False  # what changes from here on, this one may miss
                await self._restore()
        except CorrigibleError as error:
            log.error("not remembered again", reason=str(error))

    async def restore(self) -> None:
        """What the journal has, and nothing else."""
        async with self._turn:
            await self._restore()

    async def _restore(self) -> None:
        by_scope: defaultdict[str, list[Example]] = defaultdict(list)
        words = self._catalogues.possible(await self._journal.words(self._window))
        for example in await asyncio.to_thread(self._standing, words):
            by_scope[example.scope].append(example)
        found: list[tuple[Lesson, Floats]] = []
        for scope, own in by_scope.items():
            for start in range(0, len(own), PART):
                part = own[start : start + PART]
                features = await self._features(scope, [example.text for example in part])
                found.extend((self._lesson(example), feature) for example, feature in zip(part, features, strict=True))
        fresh = self._memory.blank()
        await asyncio.to_thread(fresh.restore, found)  # a second for thousands of lessons: not on the loop
        self._memory.adopt(fresh)
        await self._tell()
        if found:
            log.info("remembered", lessons=len(found))

    def _standing(self, words: Sequence[Example]) -> list[Example]:
        """One a situation: the newest word that is believed, or else the newest."""
        found: dict[tuple[str, str], Example] = {}
        for word in sorted(words, key=lambda w: (self._believed(w), w.at)):
            found[word.scope, canonical(word.text)] = word
        return sorted(found.values(), key=lambda w: w.at)

    async def learn(self, feedback: Feedback) -> None:
        """What was said now. It stands at once, unless it has to be weighed against what else was said there."""
        async with self._turn:
            word = await self._said(feedback)
            held = await self._held(word) if word is not None else None
            if word is not None and self._stands(word, held):
                return await self._place(word)
        if word is not None and held is not None and self._believed(word) and _rivals(word, *held):
            await self.on_dispute()
        return await self._settle(feedback.decision_id, silent=word is None)

    async def _said(self, feedback: Feedback) -> Example | None:
        """What a feedback teaches, if it is the newest word on its decision."""
        word = await self._journal.example_on(feedback.decision_id)
        return word if word is not None and word.id == feedback.id and self._catalogues.possible([word]) else None

    async def _held(self, word: Example) -> tuple[Lesson, Feedback] | None:
        """What is remembered where this word was said, and who taught it."""
        lesson = self._memory.lesson_on(word.scope, word.text)
        given = await self._journal.feedback(lesson.id) if lesson is not None else None
        return (lesson, given) if lesson is not None and given is not None else None

    def _stands(self, word: Example, held: tuple[Lesson, Feedback] | None) -> bool:
        """Until it is ruled who is right (`disputes`), the memory does not swing to whoever spoke last."""
        opposed = held is not None and (word.at < held[1].at or _rivals(word, *held))
        return self._believed(word) and not opposed

    async def _settle(self, decision_id: str, *, silent: bool) -> None:
        """Hold what a restart would find in the situation of a decision. `silent`: its newest word teaches nothing."""
        decision = await self._journal.decision(decision_id)
        percept = await self._journal.percept(decision.percept_id) if decision is not None else None
        if percept is None:
            return
        async with self._turn:
            before = self._memory.lesson_on(percept.scope, percept.text)
            if silent and before is None and len(await self._journal.feedback_of(decision_id)) == 1:
                return  # a dislike where nothing was taught: there is nothing to be found
            words = await self._journal.words(self._window)
            there = await asyncio.to_thread(_on, words, percept.scope, percept.text)
            standing = self._standing(self._catalogues.possible(there))
            if standing:
                await self._place(standing[0])
            elif before is not None:
                self._memory.forget([before.id])

    async def _place(self, word: Example) -> None:
        (feature,) = await self._features(word.scope, [word.text])
        self._memory.remember(self._lesson(word), feature)
        await self._tell()

    def _believed(self, word: Example) -> bool:
        return self._weigh(word) >= word.weight

    async def causes(self, scope: str, text: str, action: Action, most: int = CAUSES) -> list[tuple[Lesson, float]]:
        """What was taught that speaks for an action in a situation, and by how much; nothing without the policy."""
        if not len(self._memory):
            return []
        try:
            (feature,) = await self._features(scope, [text])
        except CorrigibleError:
            return []
        return self._memory.causes(scope, feature, action, most)

    async def only(self, ids: Container[str]) -> Memory:
        """Another memory with these lessons alone."""
        async with self._turn:
            return await asyncio.to_thread(self._memory.only, ids)

    async def _features(self, scope: str, texts: Sequence[str]) -> list[Floats]:
        known = {text: self._known(scope, text) for text in texts}
        found = {text: feature for text, feature in known.items() if feature is not None}
        missing = [text for text in known if text not in found]
        if missing:
            looked = await self._policy.look(missing, self._catalogues.of(scope))
            for text, packed in zip(missing, looked, strict=True):
                found[text] = unpacked(packed)
                self.seen(scope, text, found[text])
        return [found[text] for text in texts]

    def _known(self, scope: str, text: str) -> Floats | None:
        """What a situation is like, if it was lately decided on or is remembered."""
        feature = self._seen.get((scope, text))
        return feature if feature is not None else self._memory.feature(scope, text)

    def _lesson(self, example: Example) -> Lesson:
        return Lesson(example.id, example.scope, example.text, example.action, self._weigh(example))

    async def reweigh(self, weights: Mapping[str, float]) -> None:
        """Other people are believed from now on: some lessons count something else (by id) at once, and another word may
        stand in a situation."""
        async with self._turn:
            fresh = await asyncio.to_thread(self._memory.reweighed, weights)
            self._memory.adopt(fresh)
        if self._live:
            self.again()

    async def beside(self, versions: Mapping[str, Manifest]) -> None:
        """These versions decide from now on. What all of them have learnt loses weight, if lessons are consolidated."""
        self._memory.beside({version: manifest.lineage for version, manifest in versions.items()})
        if not self._memory.consolidates:
            return
        learnt = [frozenset(manifest.learnt) for manifest in versions.values()]
        async with self._turn:
            fresh = await asyncio.to_thread(
                self._memory.consolidated, frozenset.intersection(*learnt) if learnt else ()
            )
            self._memory.adopt(fresh)


def _rivals(word: Example, before: Lesson, given: Feedback) -> bool:
    """True if two who gave their names want different things in one situation."""
    speakers = {disputes.speaker(given.source), disputes.speaker(word.source)}
    return before.action != word.action and "" not in speakers and len(speakers) == 2


def _on(words: Sequence[Example], scope: str, text: str) -> list[Example]:
    """Those on one situation, however it is written."""
    wanted = canonical(text)
    return [word for word in words if word.scope == scope and canonical(word.text) == wanted]


async def _nobody() -> None:
    """Before the parts are wired."""
