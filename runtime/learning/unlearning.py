"""What people took back -> which versions must go, and the proof that nothing is left.

Where a version that serves was taught by it, a cycle makes another one first, and it goes then. Any other goes at once. So do
the frozen states that trainers keep from cycle to cycle: they are as good as the words that they were computed from.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

import structlog

from runtime.journal import Journal
from runtime.learning.registry import Registry
from runtime.learning.releases import Pointer, Releases
from runtime.messages import Message

log = structlog.get_logger("unlearning")


class Prover(Protocol):
    """Who shows that what was taken back is unlearnt."""

    async def begin(self, adapter: str) -> None: ...
    async def proof(self, adapter: str, removed: Collection[str] = ()) -> Message: ...


class Unlearning:
    """`unlearn` is told when words were taken back, `begin` and `end` of every cycle."""

    def __init__(
        self, journal: Journal, store: Registry, serving: Pointer, releases: Releases, folder: Path,
        prover: Prover | None = None,
    ) -> None:  # fmt: skip
        """`folder` is that of the frozen states."""
        self._journal, self._store, self._serving, self._releases = journal, store, serving, releases
        self._folder, self._prover = folder.absolute(), prover
        self._under_way: frozenset[str] = frozenset()  # ids of the feedback that the running cycle may train on
        self.on_due: Callable[[], None] = lambda: None  # told that a cycle must make weights anew

    async def unlearn(self) -> bool:
        """Feedback was taken back. True if the serving weights were taught by it, or others are being so: a cycle will make
        new ones. Versions that do not serve go at once."""
        forgotten = await self._journal.forgotten()
        against = self._serving.against
        if against is not None and not forgotten.isdisjoint(self._releases.lessons(against[0])):
            await self._releases.serve(self._serving.adapter)  # alone from now on
        if not self._under_way:
            await self._tidy()
        if await self.tainted() or not forgotten.isdisjoint(self._under_way):
            self.on_due()
            return True
        await self._remove_taught_by(forgotten)
        return False

    async def tainted(self) -> bool:
        """What serves was taught by what was taken back."""
        return not (await self._journal.forgotten()).isdisjoint(self._releases.lessons(self._serving.adapter))

    async def proof(self) -> Message | None:
        """That nothing is left of what was taken back, or what is."""
        return await self._prover.proof(self._serving.adapter) if self._prover is not None else None

    async def begin(self, words: Collection[str]) -> bool:
        """A cycle begins that may train on these (ids). True if what serves must be unlearnt by it."""
        self._under_way = frozenset(words)
        tainted = await self.tainted()
        if tainted and self._prover is not None:
            await self._prover.begin(self._serving.adapter)
        return tainted

    async def end(self, *, tainted: bool, released: bool) -> Message | None:
        """The cycle came to its verdict; the proof, if something was unlearnt. `tainted` is what `begin` said. What was taken
        back while it ran needs another one."""
        proof = None
        if tainted:
            proof = await self._only(self._serving.adapter if released else "base")
        if await self.tainted():
            self.on_due()
        elif not tainted and not (await self._journal.forgotten()).isdisjoint(self._under_way):
            proof = await self._only(self._serving.adapter)
        return proof

    async def over(self) -> None:
        """No cycle runs any more, however it ended."""
        self._under_way = frozenset()
        await self._tidy()

    async def states(self) -> Path:
        """Where a cycle keeps frozen states: somewhere else as soon as something was taken back."""
        return self._folder / str(len(await self._journal.forgotten()))

    async def _tidy(self) -> None:
        """No frozen states are left from before something was taken back."""
        kept = await self.states()
        for old in [path for path in self._folder.glob("*") if path != kept]:
            await asyncio.to_thread(shutil.rmtree, old, ignore_errors=True)

    async def _only(self, adapter: str) -> Message | None:
        """This serves now, and no version that was taught by what was taken back is left; the proof of it."""
        if self._serving.adapter != adapter:
            await self._releases.release(adapter, why="forget")
        await self._releases.serve(adapter)  # alone: the other side of a trial may be among those that go
        gone = await self._remove_taught_by(await self._journal.forgotten())
        log.info("unlearnt", serving=adapter, removed=gone)
        return await self._prover.proof(adapter, gone) if self._prover is not None else None

    async def _remove_taught_by(self, forgotten: frozenset[str]) -> tuple[str, ...]:
        """No version but what serves is left that was taught by this."""
        against = self._serving.against
        protected = {self._serving.adapter, *([against[0]] if against is not None else [])}
        return await asyncio.to_thread(self._store.remove_taught_by, forgotten, protected=protected)
