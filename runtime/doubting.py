"""JOURNAL, memory -> what is doubted: looked at before every cycle, known to the table, the memory and the learner.

Two things are looked for: words that the others' words speak against (`learning.doubt`), and words of people who want
different things in one situation (`learning.disputes`).

What was found, and what somebody vouched for, is in the journal, so that a restart changes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import structlog
from msgspec.structs import replace

from runtime.config import LearnerConfig
from runtime.journal import Journal
from runtime.learning import balance, curation, disputes, doubt, duplicates
from runtime.learning.disputes import Rulings
from runtime.learning.doubt import LITTLE, Findings, View
from runtime.learning.leftout import LeftOut
from runtime.learning.memory import Memory
from runtime.messages import Action, Example

log = structlog.get_logger("doubt")
FOUND, VOUCHED = "doubts", "vouched"  # the journal's notes


class Doubts:
    """What is known of whom to believe. Without a memory there is no judge: only people who disagree are noticed then."""

    def __init__(
        self, journal: Journal, memory: Memory | None, told: Callable[[str, Action], str], *, window: int = sys.maxsize
    ) -> None:
        """`told` puts an action in words, also one that there is no tool for any more; `window`: newest words that count."""
        self._journal, self._memory, self._told, self._window = journal, memory, told, window
        self._vouched: frozenset[str] = frozenset()
        self._become(Findings())
        self.on_change: Callable[[Mapping[str, float]], Awaitable[None]] = _nobody  # told what lessons count now, by id
        self.until_remembered: Callable[[], Awaitable[None]] = _at_once  # the judge knows what the journal has

    async def restore(self) -> None:
        """As the journal has it."""
        self._vouched = frozenset(await self._journal.metadata(VOUCHED) or ())
        found = await self._journal.metadata(FOUND)
        self._become(msgspec.convert(found, Findings) if found else Findings())

    def trusts(self, feedback: str, source: str) -> bool:
        """False for all that a distrusted source says, and for what lost against a word that somebody answers for: not even
        the table obeys it."""
        return feedback in self._vouched or not (source in self.found.sources or feedback in self.found.overruled)

    def believes(self, feedback: str, source: str) -> bool:
        """False for what is doubted, too."""
        return feedback not in self._ids and self.trusts(feedback, source)

    def weight(self, example: Example) -> float:
        """What a lesson counts in the memory."""
        return example.weight if self.believes(example.id, example.source) else LITTLE * example.weight

    def trust(self, source: str) -> float:
        """In [0, 1]: what the words of a source count in training; 1 for somebody who is not known yet."""
        return self._trust.get(source, 1.0)

    async def look(self, examples: Sequence[Example]) -> list[Example]:
        """Those that are believed, after judging all of them anew. `examples`: the newest word of everybody on each
        decision."""
        await self.until_remembered()
        views = await self._views(examples)
        judged = bool(views) or self._memory is None  # a judge who remembers nothing, yet, acquits nobody
        found = doubt.find(views, self._vouched, self.found.sources) if judged else self._undisputed()
        await self._weigh(examples, anew=await self._note(_joined(found, self._rule(examples, found))))
        return [example for example in examples if self.believes(example.id, example.source)]

    async def hear(self, examples: Sequence[Example]) -> None:
        """Somebody contradicted somebody in the same situation: rule now. Whoever is doubted for other reasons stays so."""
        found = self._undisputed()
        await self._weigh(examples, anew=await self._note(_joined(found, self._rule(examples, found))))

    def _undisputed(self) -> Findings:
        """Whoever is doubted by what the judge said last."""
        return replace(self.found, doubted=tuple(one for one in self.found.doubted if not one.case))

    def _rule(self, examples: Sequence[Example], found: Findings) -> Rulings:
        """Where those who are not doubted anyway want different things."""
        doubted = {one.feedback_id for one in found.doubted}
        trust = {one.source: one.trust for one in found.standings}
        return disputes.rule(
            [e for e in examples if e.id not in doubted and e.source not in found.sources],
            trust=lambda source: trust.get(source, 1.0), render=self._told,
            vouched=self._vouched, overruled=self.found.overruled,
        )  # fmt: skip

    async def _note(self, found: Findings) -> bool:
        """Keep what was found. True if other words are believed now."""
        before = self._ids, self.found.sources
        if found == self.found:
            return False
        others = (found.doubted, found.sources) != (self.found.doubted, self.found.sources)
        await self._journal.set_metadata(FOUND, msgspec.to_builtins(found))
        self._become(found)
        if others:
            log.warning("doubted", feedback=len(found.doubted), sources=list(found.sources))
        return (self._ids, self.found.sources) != before

    async def _weigh(self, examples: Sequence[Example], *, anew: bool) -> None:
        """Let the memory know what its lessons count now, if that has changed; also if it holds none of the words that are
        believed otherwise (`anew`), for it may have to hold them now."""
        if self._memory is None:
            return
        weights = self._weights(examples)
        if anew or any(lesson.weight != weights.get(lesson.id, lesson.weight) for lesson in self._memory.lessons()):
            await self.on_change(weights)

    def _weights(self, examples: Sequence[Example]) -> dict[str, float]:
        """What those that the memory has count in it, by id."""
        memory = self._memory
        return {e.id: self.weight(e) for e in examples if e.id in memory} if memory is not None else {}

    async def vouch(self, *names: str) -> None:
        """Somebody answers for these: ids of feedback, or sources. It holds from now on; who contradicts them in the same
        situation has lost."""
        self._vouched |= set(names)
        await self._journal.set_metadata(VOUCHED, sorted(self._vouched))
        won = [d for d in self.found.doubted if self._vouched & {d.feedback_id, d.source}]
        cases = {doubted.case for doubted in won if doubted.case}
        lost = {d.feedback_id for d in self.found.doubted if d.case in cases and d not in won}
        await self._note(
            replace(
                self.found,
                doubted=tuple(d for d in self.found.doubted if d not in won and d.case not in cases),
                sources=tuple(source for source in self.found.sources if source not in self._vouched),
                overruled=tuple(sorted({*self.found.overruled, *lost})),
                upheld=tuple(sorted({*self.found.upheld, *(d.feedback_id for d in won if d.case)})),
            )
        )
        await self.on_change(self._weights(await self._journal.words(self._window)))

    async def sources(self, settings: LearnerConfig) -> list[dict[str, Any]]:
        """Who teaches: how much each said, how the others' words speak for or against it as of the newest cycle, and whose
        share of what is learnt it is."""
        words = [w for w in await self._journal.words(settings.window) if self.believes(w.id, w.source)]
        weights = balance.weight_by_source(curation.weighed(duplicates.merged(words), settings, self.trust))
        known = {standing.source: standing for standing in self.found.standings}
        doubted = Counter(one.source for one in self.found.doubted)
        return [
            {
                "source": source,
                "words": count,
                "agreed": known[source].agreed if source in known else 0,
                "contradicted": known[source].contradicted if source in known else 0,
                "doubted": doubted[source],
                "trust": self.trust(source),
                "share": weights.get(source, 0.0) / (sum(weights.values()) or 1.0),
            }
            for source, count in (await self._journal.sources()).items()
        ]

    def report(self) -> dict[str, Any]:
        """For a cycle's record."""
        by_source = Counter(doubted.source for doubted in self.found.doubted)
        return {
            "doubted": len(self.found.doubted),
            "doubted_by_source": dict(by_source),
            "distrusted": list(self.found.sources),
        }

    def _become(self, found: Findings) -> None:
        self.found = found
        self._ids = frozenset((*(doubted.feedback_id for doubted in found.doubted), *found.aside, *found.overruled))
        self._trust = {standing.source: standing.trust for standing in found.standings}

    async def _views(self, examples: Sequence[Example]) -> list[View]:
        """What the memory would say of each example that it knows, had it not been taught."""
        found, sources = dict[str, View](), {example.id: example.source for example in examples}
        for scope in dict.fromkeys(example.scope for example in examples):
            left = self._memory.left_out(scope) if self._memory is not None else None
            if left is None or len(left.actions) < 2:
                continue
            told = [self._told(scope, action) for action in left.actions]
            found |= await asyncio.to_thread(_viewed, left, told, sources)  # half a second
        return [found[example.id] for example in examples if example.id in found]


def _viewed(left: LeftOut, told: Sequence[str], sources: Mapping[str, str]) -> dict[str, View]:
    """By id. `told`: the actions in words."""
    said, rows = left.ridge(), np.arange(len(left.lessons))
    own = said[rows, left.own].tolist()
    said[rows, left.own] = -np.inf
    others = said.argmax(1)
    best, company = said[rows, others].tolist(), left.company().tolist()
    return {
        lesson.id: View(
            id=lesson.id, source=sources[lesson.id], own=own[row], best=best[row], other=told[others[row]],
            company=company[row],
        )
        for row, lesson in enumerate(left.lessons) if lesson.id in sources
    }  # fmt: skip


def _joined(found: Findings, ruled: Rulings) -> Findings:
    return replace(
        found, doubted=(*found.doubted, *ruled.doubted), aside=tuple(sorted(ruled.aside)),
        overruled=tuple(sorted(ruled.overruled)), upheld=tuple(sorted(ruled.upheld)),
    )  # fmt: skip


async def _at_once() -> None:
    """Before the parts are wired."""


async def _nobody(weights: Mapping[str, float]) -> None:
    """Before the parts are wired."""
