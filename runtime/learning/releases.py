"""Adapter -> proof -> Release -> what serves: loads, proves, commits and flips; the way back, and the way up after a trial."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import structlog
from msgspec.structs import replace

from runtime.bus import Bus
from runtime.config import GateConfig
from runtime.errors import CorrigibleError, NotFound
from runtime.journal import Journal
from runtime.learning import jobs, ladder, registry, trust
from runtime.learning.trust import Trust
from runtime.messages import Cycle, Release, new_id
from runtime.metrics import Metrics

log = structlog.get_logger("releases")


class Loader(Protocol):
    """The part of the policy that a release needs."""

    async def load(self, adapter: str, directory: Path) -> list[float]: ...
    async def unload(self, adapter: str) -> None: ...


class Pointer(Protocol):
    """What decisions read: who serves."""

    adapter: str
    trust: Trust
    against: tuple[str, Trust] | None
    share: float

    @property
    def deciding(self) -> str: ...


class Releases:
    """Which versions there are, and which of them serve. Nothing else moves the pointer."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        policy: Loader,
        store: registry.Registry,
        serving: Pointer,
        gate: GateConfig,
        metrics: Metrics,
        model: Callable[[], jobs.Base],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal, self._bus, self._policy, self._store = journal, bus, policy, store
        self._serving, self._gate, self._metrics, self._model = serving, gate, metrics, model
        self._clock = clock
        self._loaded: list[str] = []  # adapters the worker holds, newest last
        # told which versions decide from now on
        self.on_serve: Callable[[Mapping[str, registry.Manifest]], Awaitable[None]] = _nobody

    # --- versions -----------------------------------------------------------------------------------------------

    async def publish(self, job: Path, *, lineage: Sequence[str], verdict: str, trusted: Trust) -> str:
        """The adapter of a finished job becomes a version, child of what decides; returns its id."""
        parent = self._serving.deciding
        return await asyncio.to_thread(
            self._store.publish, job, parent=parent, lineage=lineage, verdict=verdict, trust=trusted
        )

    def lessons(self, adapter: str) -> frozenset[str]:
        """Ids of the feedback that a version was taught by."""
        return frozenset(() if adapter == "base" else self._store.manifest(adapter).lineage)

    def champion(self) -> tuple[str, frozenset[str]]:
        """What a candidate is compared with: the directory of the weights as they were judged, and the lessons they had been
        taught by then. The base model has neither."""
        adapter = self._serving.deciding
        if adapter == "base":
            return "", frozenset()
        return str(self._store.judged(adapter)), self.lessons(adapter) - {*self._store.manifest(adapter).held_out}

    # --- what serves --------------------------------------------------------------------------------------------

    async def release(
        self,
        adapter: str,
        *,
        why: str,
        provisional: bool = False,
        by: str = "corrigible",
        reason: str = "",
        cycle: Cycle | None = None,
    ) -> Release:
        """Load, prove, commit, flip. Raises Corrupt if what would serve is not what was trained."""
        if adapter != "base":
            await self._prove(adapter)
        previous = self._serving.deciding
        against = await self._rival() if provisional else ""
        release = Release(
            id=new_id("re"), adapter=adapter, previous=previous, why=why, provisional=provisional, against=against,
            shadow=self._gate.shadow if against not in ("", "base", adapter) else 0, by=by, reason=reason,
            at=self._clock(),
        )  # fmt: skip
        await self._journal.put(release, *([cycle] if cycle is not None else []))
        await self.serve(adapter, against, silent=release.shadow > 0)
        self._metrics.releases.labels(why).inc()
        log.info("released", adapter=adapter, previous=previous, why=why, provisional=provisional, reason=reason)
        await self._bus.publish(release)
        await self._forget_old(adapter, previous, against)
        return release

    async def _rival(self) -> str:
        """What a provisional version has to prove itself against: what serves, or, if that is on trial itself against
        another trained version, that one, so that a row of trials cannot lead downhill. Nothing, if what serves was taught
        by what was taken back."""
        if not self.lessons(self._serving.adapter).isdisjoint(await self._journal.forgotten()):
            return ""
        against = self._serving.against
        return against[0] if against is not None else self._serving.adapter

    async def confirm(self, proven: Release, reason: str) -> Release:
        """This provisional release has proven itself. Raises NotFound if it is not the newest any more."""
        newest = await self._journal.serving()
        if newest is None or newest.id != proven.id or not newest.provisional:
            raise NotFound(f"release {proven.id} is not the provisional one that serves")
        release = replace(
            newest, id=new_id("re"), why="probation", provisional=False, against="", by="corrigible", reason=reason,
            previous=newest.against or newest.previous, at=self._clock(),
        )  # fmt: skip
        await self._journal.put(release)
        await self.serve(newest.adapter)
        log.info("confirmed", adapter=newest.adapter, reason=reason)
        await self._bus.publish(release)
        return release

    def take_part(self, release: Release) -> None:
        """The version on trial was in shadow; from here on it makes its share of the decisions."""
        against = self._serving.against
        if against is None or (release.adapter, release.against) != (self._serving.adapter, against[0]):
            return  # another one is on trial by now
        self._serving.share = self._gate.share
        log.info("takes part", adapter=self._serving.adapter, share=self._serving.share)

    async def rollback(self, by: str = "") -> Release:
        """Back to what served before the newest release."""
        newest = await self._journal.serving()
        if newest is None:
            raise NotFound("nothing was ever released: the base model serves")
        return await self.release(newest.previous, why="rollback", by=by)

    async def restore(self) -> None:
        """At start: serve the newest release that still verifies, else the base model; say so if it is not the newest."""
        for release in await self._journal.releases():
            if release.adapter == "base":
                break
            try:
                await self._prove(release.adapter)
            except CorrigibleError as error:
                log.error("adapter is not usable", adapter=release.adapter, reason=str(error))
                continue
            silent = ladder.rung(release, await ladder.watched(self._journal, release)) == "shadow"
            await self.serve(release.adapter, await self._still_there(release.against), silent=silent)
            await self._still_there(release.previous)  # complaints may ask what it would have done
            return
        await self.serve("base")

    async def serve(self, adapter: str, against: str = "", *, silent: bool = False) -> None:
        """The flip: from here on decisions use this one; `against` another trained one, only a share of them, or none
        while it is `silent`."""
        shared = against not in ("", "base", adapter)
        self._serving.against = (against, self._trusted(against)) if shared else None
        self._serving.share = 0.0 if shared and silent else self._gate.share
        self._serving.adapter, self._serving.trust = adapter, self._trusted(adapter)
        deciding = (adapter, against) if shared else (adapter,)
        await self.on_serve({one: self._store.manifest(one) for one in deciding if one != "base"})

    def _trusted(self, adapter: str) -> Trust:
        return trust.BASE if adapter == "base" else trust.trust_of(self._store.manifest(adapter).scores)

    # --- what the worker holds ----------------------------------------------------------------------------------

    async def _prove(self, adapter: str) -> None:
        manifest = await asyncio.to_thread(self._store.verify, adapter, self._model().revision)
        served = await self._policy.load(adapter, self._store.directory(adapter))
        registry.same_fingerprint(adapter, manifest.fingerprint, served)
        if adapter not in self._loaded:
            self._loaded.append(adapter)

    async def _still_there(self, adapter: str) -> str:
        """The version on the other side of a trial, if it can be loaded."""
        if adapter in ("", "base"):
            return adapter
        with suppress(CorrigibleError):
            await self._prove(adapter)
            return adapter
        return ""

    async def _forget_old(self, *needed: str) -> None:
        """The worker keeps what serves and what served before it (an instant rollback); the disk keeps `[gate] keep`."""
        for adapter in [a for a in self._loaded if a not in needed]:
            self._loaded.remove(adapter)
            with suppress(CorrigibleError):  # a worker that died holds nothing
                await self._policy.unload(adapter)
        await asyncio.to_thread(self._store.prune, self._gate.keep, protected=set(needed))


async def _nobody(versions: Mapping[str, registry.Manifest]) -> None:
    """Before the parts are wired."""
