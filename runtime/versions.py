"""Adapter -> what changed since the version before: lessons, numbers of the weights, and the reference decisions that flipped.

Reference decisions: situations that were really met, chosen by their text alone among the newest until the newer version was
made. So they are the same whenever the same two versions are compared, and none of them was chosen by what it shows.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.errors import CorrigibleError
from runtime.journal import Journal
from runtime.learning import changes
from runtime.learning.changes import Module
from runtime.learning.jobs import Base
from runtime.learning.registry import Manifest, Registry
from runtime.lending import BASE, Policy, lent
from runtime.messages import portion
from runtime.situations import Catalogues

AMONG, MOST = 5000, 200  # newest situations that are looked among; of these so many are asked
PART = 16  # situations that are asked at once
LONGEST = 60.0  # seconds after which no further ones are asked
KEPT = 32  # comparisons that are kept, for when they are asked again


class Versions:
    """Compares two versions; changes nothing."""

    def __init__(
        self, journal: Journal, policy: Policy, catalogues: Catalogues, store: Registry, model: Callable[[], Base]
    ) -> None:
        """`model` says where the base model lies; it raises CorrigibleError if that is not known."""
        self._journal, self._policy, self._catalogues = journal, policy, catalogues
        self._store, self._model = store, model
        self._kept: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()
        self._turn = asyncio.Lock()  # one at a time: it takes seconds

    async def changes(self, id: str, since: str = "") -> dict[str, Any]:
        """Raises NotFound for a version that is not on disk. `since` is the version before if it is empty."""
        newer = self._manifest(id)
        if newer is None:
            return {"id": BASE, "since": BASE, "modules": [], "flips": None}
        older = self._manifest(since) if since else self._before(newer)
        pair = id, older.id if older else BASE
        async with self._turn:
            if pair not in self._kept:
                found = await self._compared(newer, older)
                if found["flips"] is None:
                    return found  # the model was not there to be asked
                self._kept[pair] = found
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return self._kept[pair]

    def _manifest(self, id: str) -> Manifest | None:
        """None stands for the base model."""
        return None if id == BASE else self._store.manifest(id)

    def _before(self, newer: Manifest) -> Manifest | None:
        """What served when it was made; if that is gone, the newest older one."""
        older = [m for m in self._store.list() if m.created < newer.created]
        parent = next((m for m in older if m.id == newer.parent), None)
        return parent if parent is not None or newer.parent == BASE or not older else older[0]

    async def _compared(self, newer: Manifest, older: Manifest | None) -> dict[str, Any]:
        modules = await asyncio.to_thread(self._moved, newer, older)
        known = set(older.lineage if older else ())
        asked, flips = await self._flips(newer, older)
        return {
            "id": newer.id,
            "since": older.id if older else BASE,
            "parent": newer.parent,
            "lessons": {"new": len(set(newer.lineage) - known), "gone": len(known - set(newer.lineage))},
            **changes.summary(modules),
            "modules": [{**asdict(module), "share": module.share} for module in modules],
            "asked": asked,
            "flips": flips,
        }

    def _moved(self, newer: Manifest, older: Manifest | None) -> list[Module]:
        """In a thread: it reads the files."""
        now = changes.read(self._store.directory(newer.id))
        before = changes.read(self._store.directory(older.id)) if older else {}
        try:
            norms = changes.base_norms(Path(self._model().directory), {**now, **before})
        except CorrigibleError:
            norms = {}  # without the daemon nobody knows where the base model is
        return changes.compare(now, before, norms)

    async def _flips(self, newer: Manifest, older: Manifest | None) -> tuple[int, list[dict[str, str]] | None]:
        """How many were asked, and those that the two decide differently, by the weights alone; None without a model."""
        situations = await self._reference(max(m.created for m in (newer, older) if m is not None))
        flips: list[dict[str, str]] = []
        asked, until = 0, time.monotonic() + LONGEST
        try:
            async with (
                lent(self._policy, self._directory(newer)) as now,
                lent(self._policy, self._directory(older)) as before,
            ):
                for scope, texts in situations.items():
                    for start in range(0, len(texts), PART):
                        if time.monotonic() > until:
                            return asked, flips
                        part = texts[start : start + PART]
                        flips += await self._differ(scope, part, now, before)
                        asked += len(part)
        except CorrigibleError:
            return 0, None
        return asked, flips

    def _directory(self, manifest: Manifest | None) -> Path | None:
        return self._store.directory(manifest.id) if manifest is not None else None

    async def _reference(self, until: float) -> dict[str, list[str]]:
        """Texts by scope, where one of a finite number of actions is chosen: to write replies takes too long."""
        found = [
            (scope, text)
            for scope, text in await self._journal.situations(AMONG, until)
            if scope in self._catalogues.scopes and self._catalogues.of(scope).closed
        ]
        by_scope: defaultdict[str, list[str]] = defaultdict(list)
        for scope, text in sorted(found, key=lambda pair: portion(*pair))[:MOST]:
            by_scope[scope].append(text)
        return by_scope

    async def _differ(self, scope: str, texts: list[str], now: str, before: str) -> list[dict[str, str]]:
        catalogue = self._catalogues.of(scope)
        newer, older = [await self._policy.score(texts, catalogue, name) for name in (now, before)]
        return [
            {"scope": scope, "text": text, "before": catalogue.render(b.chosen), "now": catalogue.render(n.chosen)}
            for text, n, b in zip(texts, newer, older, strict=True)
            if n.chosen != b.chosen
        ]
