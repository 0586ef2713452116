"""JOURNAL, memory -> what is doubted: looked at before every cycle, known to the table, the memory and the learner.

What was found, and what somebody vouched for, is in the journal, so that a restart changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from runtime.journal import Journal
from runtime.learning import doubt
from runtime.learning.doubt import Findings, View
from runtime.learning.memory import Memory
from runtime.messages import Action, Example

log = structlog.get_logger("doubt")
FOUND, VOUCHED = "doubts", "vouched"  # the journal's notes
LITTLE = 0.02  # what a doubted lesson weighs in the memory: so little that it is still judged by the others


class Doubts:
    """What is known of whom to believe. Without a memory there is no judge, and nothing is ever doubted."""

    def __init__(self, journal: Journal, memory: Memory | None, render: Callable[[str, Action], str]) -> None:
        self._journal, self._memory, self._render = journal, memory, render
        self._vouched: frozenset[str] = frozenset()
        self._ids: frozenset[str] = frozenset()
        self.found = Findings()
        self.on_change: Callable[[Mapping[str, float]], Awaitable[None]] = _nobody  # told what lessons count now, by id

    async def restore(self) -> None:
        """As the journal has it."""
        self._vouched = frozenset(await self._journal.metadata(VOUCHED) or ())
        found = await self._journal.metadata(FOUND)
        self._become(msgspec.convert(found, Findings) if found else Findings())

    def trusts(self, feedback: str, source: str) -> bool:
        """False for all that a distrusted source says: not even the table obeys it."""
        return source not in self.found.sources or feedback in self._vouched

    def believes(self, feedback: str, source: str) -> bool:
        """False for what is doubted, too."""
        return feedback not in self._ids and self.trusts(feedback, source)

    def weight(self, example: Example) -> float:
        """What a lesson counts in the memory."""
        return example.weight if self.believes(example.id, example.source) else LITTLE * example.weight

    async def look(self, examples: Sequence[Example]) -> list[Example]:
        """Those that are believed, after judging all of them anew."""
        if self._memory is None:
            return list(examples)
        views = [view for example in examples if (view := await self._view(example)) is not None]
        found = doubt.find(views, self._vouched)
        if found != self.found:
            log.warning("doubted", feedback=len(found.doubted), sources=list(found.sources))
            await self._journal.set_metadata(FOUND, msgspec.to_builtins(found))
        self._become(found)
        weights = {example.id: self.weight(example) for example in examples if example.id in self._memory}
        if any(lesson.weight != weights.get(lesson.id, lesson.weight) for lesson in self._memory.lessons()):
            await self.on_change(weights)
        return [example for example in examples if self.believes(example.id, example.source)]

    async def vouch(self, *names: str) -> None:
        """Somebody answers for these: ids of feedback, or sources. It holds from now on."""
        self._vouched |= set(names)
        await self._journal.set_metadata(VOUCHED, sorted(self._vouched))
        doubted = [d for d in self.found.doubted if not self._vouched & {d.feedback_id, d.source}]
        left = Findings(doubted=tuple(doubted), sources=tuple(s for s in self.found.sources if s not in self._vouched))
        await self._journal.set_metadata(FOUND, msgspec.to_builtins(left))
        self._become(left)
        if self._memory is not None:
            await self.on_change({lesson.id: 1.0 for lesson in self._memory.lessons() if lesson.id not in self._ids})

    def report(self) -> dict[str, Any]:
        """For a cycle's record."""
        by_source = Counter(doubted.source for doubted in self.found.doubted)
        return {
            "doubted": len(self.found.doubted),
            "doubted_by_source": dict(by_source),
            "distrusted": list(self.found.sources),
        }

    def _become(self, found: Findings) -> None:
        self.found, self._ids = found, frozenset(doubted.feedback_id for doubted in found.doubted)

    async def _view(self, example: Example) -> View | None:
        memory = self._memory
        if memory is None or example.id not in memory:
            return None
        await asyncio.sleep(0)  # some milliseconds each
        recalled = memory.without(example.id)
        if recalled is None:
            return None
        own = recalled.actions.index(example.action)
        others = [i for i in range(len(recalled.actions)) if i != own]
        if not others:
            return None
        best = max(others, key=lambda i: float(recalled.ridge[i]))
        return View(
            id=example.id, source=example.source, own=float(recalled.ridge[own]), best=float(recalled.ridge[best]),
            other=self._render(example.scope, recalled.actions[best]), alone=float(recalled.near[own]) < -0.99,
        )  # fmt: skip


async def _nobody(weights: Mapping[str, float]) -> None:
    """Before the parts are wired."""
