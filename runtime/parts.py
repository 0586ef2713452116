"""Configuration, journal, policy and plugins -> all parts of one daemon, each handed what it needs."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from runtime import condition
from runtime import plugins as loading
from runtime.action import Acting
from runtime.apprentice import Apprentice
from runtime.bus import Bus
from runtime.config import Config
from runtime.control import Control
from runtime.control.looking import Looking
from runtime.control.saying import Saying
from runtime.control.showing import Showing
from runtime.control.switching import Switching
from runtime.counterfactual import Counterfactuals
from runtime.decision import Decider, Serving
from runtime.doubting import Doubts
from runtime.drifting import Drifting
from runtime.errors import BadConfig
from runtime.explaining import Explaining
from runtime.guard import Guard, Modes
from runtime.ingest import Ingest
from runtime.isolation.remote import Remote
from runtime.journal import Journal
from runtime.learning import cases
from runtime.learning.apart import Apart
from runtime.learning.learner import Learner
from runtime.learning.memory import Memory
from runtime.learning.registry import Registry
from runtime.learning.releases import Releases
from runtime.learning.unlearning import Unlearning
from runtime.messages import Decision, Feedback
from runtime.metrics import Metrics
from runtime.notices import Notices
from runtime.perception import Perception
from runtime.policy.client import Policy
from runtime.probation import Probation
from runtime.proving import Proving
from runtime.remembering import Remembering
from runtime.retracting import Retracting
from runtime.roles import Actuator, Perceiver, Plugin, Rule
from runtime.shadowing import Shadowing
from runtime.shedding import Shedding
from runtime.situations import Catalogues
from runtime.stalls import Stalls
from runtime.supervision import Child
from runtime.table import CorrectionTable
from runtime.versions import Versions


class Parts:
    """All parts of one daemon, by what they are there for."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        policy: Policy,
        plugins: Sequence[Plugin],
        broker: Any,
        modes: dict[str, Any],
        guard: Guard,
        safe: str = "",
    ) -> None:
        self.config, self.journal, self.policy, self.plugins, self.broker = config, journal, policy, plugins, broker
        self.guard = guard
        self.zone = zone_of(config.agent.timezone)
        self.metrics, self.bus = Metrics(), Bus()
        self.safe = safe  # the reason for safe mode; "" = there is none
        self.children = {plugin.name: Child(plugin.name) for plugin in plugins}
        self.side: dict[str, Child] = {}  # those that only watch, and may be started again
        self.stalls = Stalls(plugins, self.children, self.metrics)
        self.restored = False  # what the journal knows
        self._known(loading.of_role(plugins, Actuator))
        self._coming_in()
        self._going_out(loading.of_role(plugins, Actuator), modes)
        self._learning()
        self._explaining()
        self._asked()

    def _known(self, actuators: Sequence[Actuator]) -> None:
        """What all the others look at."""
        self.catalogues = Catalogues([plugin.tools() for plugin in actuators])
        self.serving = Serving("base")
        self.store = Registry(self.config.agent.data / "adapters")
        self.memory = Memory(self.config.policy.consolidate)
        self.judge = self.memory if self.config.policy.memory else None  # where it takes part
        self.doubts = Doubts(self.journal, self.judge, self.catalogues.told, window=self.config.learner.window)
        self.doubts.on_change = self._believe
        self.table = CorrectionTable(self.doubts.trusts)

    def _coming_in(self) -> None:
        """From a message to a decision."""
        journal, bus, config = self.journal, self.bus, self.config
        self.shedding = Shedding(journal, self.metrics)
        self.notices = Notices(journal)
        self.ingest = Ingest(journal, bus, self.table, self.catalogues.of, self.metrics, self._taught)
        self.perception = Perception(
            journal, bus, config.perception, loading.of_role(self.plugins, Perceiver),
            zone=self.zone, actuators=self.catalogues.actuators, scopes=self.catalogues.scopes,
        )  # fmt: skip
        self.remembering = Remembering(
            journal, self.policy, self.catalogues, self.memory, window=config.learner.window, weigh=self.doubts.weight
        )
        self.remembering.on_dispute = self._rule
        if self.judge is not None:
            self.doubts.until_remembered = self.remembering.until_begun
        self.decider = Decider(
            journal, bus, self.policy, self.catalogues, self.table, self.serving, config.policy, self.metrics,
            memory=self.judge, seen=self.remembering.seen,
        )  # fmt: skip

    def _going_out(self, actuators: Sequence[Actuator], modes: dict[str, Any]) -> None:
        """From a decision to a command."""
        journal, settings, guard = self.journal, self.config.guard, self.guard
        self.modes = Modes(dict(self.config.modes), _trusted(actuators), modes)
        self.perception.on_reading = lambda reading, fresh: guard.interlocks.hear(
            reading.name, reading.value, time.time() - reading.at if fresh else None
        )
        self.apprentice = Apprentice(
            journal, self.catalogues, self.modes, settings.apprentice_bound, believes=self.doubts.believes
        )
        self.acting = Acting(
            journal, self.bus, self.catalogues, actuators, loading.of_role(self.plugins, Rule), guard, self.modes,
            self.metrics, zone=self.zone, expiry=settings.expiry, approval=settings.approval, apprentice=self.apprentice,
        )  # fmt: skip

    def _learning(self) -> None:
        """From feedback to a version that serves, and back."""
        journal, policy, config, catalogues = self.journal, self.policy, self.config, self.catalogues
        self.releases = Releases(
            journal, self.bus, policy, self.store, self.serving, config.gate, self.metrics, policy.base
        )
        self.releases.on_serve = self.remembering.beside
        proving = Proving(journal, policy, catalogues, self.store, cases.read(config.gate.must_pass))
        self.unlearning = Unlearning(
            journal, self.store, self.serving, self.releases, config.agent.data / "states", proving
        )
        self.learner = Learner(
            journal, self.bus, catalogues, self.releases, self.unlearning, config, self.metrics, policy.base,
            memory=self.judge, doubts=self.doubts, timezone=self.zone,
        )  # fmt: skip
        self.unlearning.on_due = self.learner.ask
        policy.on_busy = self.learner.yield_to
        self.drifting = Drifting(journal, self.learner, self.metrics)
        self.probation = Probation(journal, policy, catalogues, self.releases, believes=self.doubts.believes)
        self.shadowing = Shadowing(
            journal, policy, catalogues, self.serving, self.decider, self.releases, feature=config.policy.memory
        )

    def _explaining(self) -> None:
        """Why it decided so, and what would be otherwise."""
        journal, policy, catalogues, store = self.journal, self.policy, self.catalogues, self.store
        self.explaining = Explaining(journal, policy, catalogues, store, self.serving, self.judge)
        self.versions = Versions(journal, policy, catalogues, store, policy.base)
        self.counterfactuals = Counterfactuals(
            journal, policy, catalogues, store, self.explaining, self.remembering, self.doubts, self.learner,
            Apart(self.config, catalogues, self.learner, policy.base), memory=self.config.policy.memory,
        )  # fmt: skip

    def _asked(self) -> None:
        """What people and programs may ask."""
        config, journal, bus, catalogues = self.config, self.journal, self.bus, self.catalogues
        showing = Showing(journal, bus, catalogues, self.store, self.remembering, self.explaining, self.counterfactuals)
        retracting = Retracting(journal, self.ingest, self.remembering, self.unlearning, self.restore_taught)
        self.control = Control(
            Looking(
                config, journal, catalogues, self.decider, self.acting, self.modes, self.learner, self.store,
                self.versions, self.doubts, self.apprentice, self.notices, health=self.health, topics=self.topics,
            ),
            showing,
            Saying(journal, bus, catalogues, self.ingest, self.doubts, retracting, showing, config.learner),
            Switching(
                config, journal, catalogues, self.decider, self.acting, self.modes, self.learner, self.releases
            ),
        )  # fmt: skip

    def _taught(self, decision: Decision, feedback: Feedback) -> None:
        if feedback.action is not None:
            self.catalogues.know(decision.scope, feedback.action)

    async def _believe(self, weights: Mapping[str, float]) -> None:
        """Who is believed has changed."""
        await self.restore_taught()
        await self.remembering.reweigh(weights)

    async def _rule(self) -> None:
        """People want different things in one situation."""
        await self.doubts.hear(self.catalogues.possible(await self.journal.words(self.config.learner.window)))

    async def restore_taught(self) -> None:
        """What people taught: the corrections and the replies."""
        words = await self.journal.words(self.config.learner.window)
        self.table.restore(
            await self.journal.corrections(), [word for word in words if word.id in self.doubts.found.upheld]
        )
        examples = await self.journal.examples(self.config.learner.window)
        self.catalogues.know_only((example.scope, example.action) for example in examples)

    def health(self) -> dict[str, Any]:
        ready = {
            "journal": self.journal.healthy,
            "restored": self.restored,
            **({} if self.safe else {"policy": self.policy.ready and self.decider.awake.is_set()}),
            "broker": self.broker is None or self.broker.healthy,
        }
        broken = [
            f"{child.name}: {child.error}"
            for child in (*self.children.values(), *self.side.values())
            if child.state in ("restarting", "quarantined")
        ]
        trainer = self.learner.process
        degraded = [f"{name} is not ready" for name, ok in ready.items() if not ok] + broken + self.stalls.causes
        degraded += ["the disk is full: nothing is taken in until there is space"] * self.journal.low
        stands = condition.of(safe=self.safe, killed=self.acting.guard.killed, degraded=degraded)
        return {
            "condition": stands.name,
            "causes": list(stands.causes),
            "ready": ready,
            "processes": {
                "daemon": os.getpid(),
                "policy": self.policy.pid,
                "trainer": trainer.pid if trainer is not None else None,
                "broker": self.broker.pid if self.broker is not None else None,
            },
            "degraded": [*([f"safe mode: {self.safe}"] if self.safe else []), *degraded],
            "plugins": [
                {"name": p.name, "use": loading.use_of(p), "roles": loading.roles_of(p),
                 "state": self.children[p.name].state, "restarts": self.children[p.name].restarts,
                 **(p.report() if isinstance(p, Remote) else {})}
                for p in self.plugins
            ],
        }  # fmt: skip

    def stands(self) -> condition.Condition:
        """In one word, with the causes; and the counts that only the plugins themselves keep."""
        for plugin in self.plugins:
            if isinstance(plugin, Remote):
                self.metrics.refused(plugin.name, rejected=plugin.rejected, shed=plugin.shed)
        found = self.health()
        return condition.Condition(found["condition"], tuple(found["causes"]))

    def topics(self) -> dict[str, Any]:
        return importlib.import_module("plugins.asyncapi").document(self.config)  # type: ignore[no-any-return]


def _trusted(actuators: Sequence[Actuator]) -> frozenset[str]:
    return frozenset(
        tool.actuator for plugin in actuators if plugin.trusted for tools in plugin.tools().values() for tool in tools
    )


def zone_of(name: str) -> tzinfo:
    """The time zone of `[agent] timezone`, the machine's if it is empty."""
    if not name:
        with suppress(OSError, ZoneInfoNotFoundError, ValueError, IndexError):
            return ZoneInfo(str(Path("/etc/localtime").resolve()).split("zoneinfo/", 1)[1])
        return datetime.now().astimezone().tzinfo or UTC  # no zone file: the present offset, without rules
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise BadConfig(f"[agent] timezone: there is no zone {name!r}; write one such as Europe/Vienna") from None
