"""How things stand, for people: the status, what waits, the cycles, the versions, and whether people are content."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import Any

from msgspec import to_builtins

from runtime import __version__
from runtime.action import Acting
from runtime.apprentice import Apprentice
from runtime.config import Config
from runtime.control.alarms import alarms
from runtime.decision import Decider
from runtime.doubting import Doubts
from runtime.drifting import KEY as DRIFT
from runtime.errors import BadInput
from runtime.guard import Modes
from runtime.journal import Journal
from runtime.learning import ladder
from runtime.learning.learner import Learner
from runtime.learning.registry import Manifest, Registry
from runtime.messages import Action, Command, Release
from runtime.notices import Notices
from runtime.satisfaction import Satisfaction
from runtime.situations import Catalogues
from runtime.versions import Versions

HOUR = 3600.0  # seconds

Told = Callable[[], dict[str, Any]]


class Looking:
    """Changes nothing."""

    def __init__(
        self, config: Config, journal: Journal, catalogues: Catalogues, decider: Decider, acting: Acting, modes: Modes,
        learner: Learner, store: Registry, versions: Versions, doubts: Doubts, apprentice: Apprentice, notices: Notices, *,
        health: Told, topics: Told, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._config, self._journal, self._catalogues = config, journal, catalogues
        self._decider, self._acting, self._modes = decider, acting, modes
        self._learner, self._store, self._versions = learner, store, versions
        self._doubts, self._apprentice, self._notices = doubts, apprentice, notices
        self._satisfaction = Satisfaction(journal, clock)
        self._health, self._topics, self._clock = health, topics, clock
        self._started = clock()

    async def status(self) -> dict[str, Any]:
        release = await self._journal.serving()
        cycles = await self._journal.cycles(1)
        cycle = self._learner.current or (cycles[0] if cycles else None)
        seen = await self._seen()
        return {
            "agent": self._config.agent.name,
            "pid": os.getpid(),
            "version": __version__,
            "uptime": round(self._clock() - self._started, 1),
            "adapter": release.adapter if release else "base",
            "provisional": bool(release and release.provisional),
            **await self._rung(release),
            "changes": cycle.report.get("drift") if cycle else None,
            "why": release.reason if release else "",
            "modes": await self.modes(),
            "apprentice": await self._apprentice.report(),
            "kill": self._acting.guard.killed,
            "uncertain": len(await self._journal.uncertain()),
            **seen,
            "alarms": list(alarms(seen)),
            "drift": await self._drift(),
            "doubted": len(self._doubts.found.doubted),
            "distrusted": list(self._doubts.found.sources),
            "table": self._decider.table_on,
            "memory": self._decider.memory_on,
            "satisfaction": to_builtins((await self._satisfaction.lately()).lately),
            "counts": await self._journal.counts(),
            "cycle": to_builtins(cycle) if cycle else None,
            "feedback_since": await self._journal.feedback_since(cycle.started_at if cycle else 0.0),
            "transitions": await self._journal.transitions(5),
            **self._health(),
        }

    async def _seen(self) -> dict[str, Any]:
        """What was lost, never came, was let go, or is to be told."""
        return {
            "lost": await self._journal.lost(),
            "missing": [to_builtins(gap) for gap in await self._journal.gaps(20) if gap.filled is None],
            "shed": await self._journal.let_go(self._clock() - HOUR),
            "notices": await self._notices.shown(),
        }

    async def _rung(self, release: Release | None) -> dict[str, Any]:
        """On which rung what serves stands, what it waits for, and how its trial goes."""
        if release is None:
            return {"rung": "full", "waits_for": "", "trial": None}
        watch = await ladder.watched(self._journal, release)
        trial = await ladder.tried(self._journal, release, watch)
        rung = ladder.rung(release, watch)
        return {
            "rung": rung,
            "waits_for": "" if rung == "full" else ladder.says(release, watch, trial, self._config.gate.share),
            "trial": to_builtins(trial) if trial.events else None,
        }

    async def _drift(self) -> dict[str, Any] | None:
        """The last change of what people say or of what comes in, and whether a cycle has learnt since."""
        found = await self._journal.metadata(DRIFT)
        return {**found, "learnt": await self._journal.learnt_at() >= found["at"]} if found else None

    async def modes(self) -> dict[str, str]:
        return {actuator: self._modes.of(actuator) for actuator in sorted(self._catalogues.actuators)}

    async def held(self) -> list[dict[str, Any]]:
        """Commands that wait for somebody's yes."""
        return [{**_told(command), "expires_at": command.expires_at} for command in self._acting.held]

    async def uncertain(self) -> list[dict[str, Any]]:
        """Commands that may have been carried out, and are not told again: a person who looks can say."""
        return [{**_told(command), "at": command.at} for command in await self._journal.uncertain()]

    async def topics(self) -> dict[str, Any]:
        return self._topics()

    async def cycles(self, limit: int = 20) -> list[dict[str, Any]]:
        return [to_builtins(cycle) for cycle in await self._journal.cycles(limit)]

    async def curve(self) -> list[list[float]]:
        return [list(point) for point in await self._journal.curve()]

    async def satisfaction(self, days: float = 0.0) -> dict[str, Any]:
        """Are people content: over the last `days` days, in all, and with every version. 0 = the usual days, and what was
        found within the last minute will do."""
        if not 0.0 <= days < math.inf:
            raise BadInput(f"days is a number above 0, not {days:g}")
        found = await (self._satisfaction.report(days) if days else self._satisfaction.lately())
        return dict(to_builtins(found))

    async def adapters(self) -> list[dict[str, Any]]:
        serving = await self._journal.serving()
        now = serving.adapter if serving else "base"
        on_trial = now if serving and serving.provisional else ""
        return [
            {"id": "base", "serving": now == "base", "provisional": False},
            *(
                {**summary(manifest), "serving": manifest.id == now, "provisional": manifest.id == on_trial}
                for manifest in self._store.list()
            ),
        ]

    async def adapter(self, id: str) -> dict[str, Any]:
        return dict(to_builtins(self._store.manifest(id)))

    async def changes(self, id: str, since: str = "") -> dict[str, Any]:
        """How a version differs from another, or from the one before it."""
        return await self._versions.changes(id, since)


def summary(manifest: Manifest) -> dict[str, Any]:
    """A version, with the number of its lessons instead of their ids."""
    return {**to_builtins(manifest), "lineage": len(manifest.lineage)}


def _text(action: Action) -> str:
    return f"{action.tool} {' '.join(map(str, action.arguments.values()))}".strip()


def _told(command: Command) -> dict[str, Any]:
    return {
        "command_id": command.id,
        "actuator": command.actuator,
        "decision_id": command.decision_id,
        "action": _text(command.action),
    }
