"""THE LOOP on one screen: builds the parts, starts them in order, and stops them in the reverse.

     sensors ──▶ ingest ──▶ perception ──▶ decision ──▶ action ──▶ actuators
                   │            │              ▲            │
                   ▼            ▼              │            ▼
                JOURNAL ◀───────┴──────────────┼────────────┘
                   │                           │
                   └──▶ learner ──▶ gate ──▶ release

Start: lock, journal, broker, policy worker, plugins, stages, then what the last run left unfinished, console, sensors.
Stop (SIGTERM, SIGINT): 1. the door, so nothing new comes in; 2. drain decisions and commands in flight, at most GRACE;
3. plugins; 4. stages, learner and its trainer; 5. console; 6. policy worker; 7. broker, if it is ours; 8. journal; 9. lock.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog

from runtime import plugins as loading
from runtime import systemd
from runtime.action import Acting
from runtime.apprentice import Apprentice
from runtime.bus import Bus, Subscription
from runtime.config import Config
from runtime.console import server
from runtime.control import MODES_KEY, Control
from runtime.counterfactual import Counterfactuals
from runtime.decision import Decider, Serving
from runtime.doubting import Doubts
from runtime.drifting import Drifting
from runtime.errors import BadConfig, CorrigibleError
from runtime.explaining import Explaining
from runtime.guard import Guard, Modes
from runtime.ingest import Ingest
from runtime.journal import Journal, lock
from runtime.learning import cases
from runtime.learning.apart import Apart
from runtime.learning.learner import Learner
from runtime.learning.memory import Memory
from runtime.learning.registry import Registry
from runtime.learning.releases import Releases
from runtime.learning.unlearning import Unlearning
from runtime.messages import Action, Command, Decision, Feedback, Message, Observation, Outcome, Percept
from runtime.metrics import Metrics
from runtime.perception import Perception
from runtime.policy.client import Policy
from runtime.probation import Probation
from runtime.proving import Proving
from runtime.remembering import Remembering
from runtime.roles import Actuator, Context, Critic, Perceiver, Plugin, Rule, Sensor
from runtime.shadowing import Shadowing
from runtime.situations import Catalogues
from runtime.supervision import Child, supervise
from runtime.table import CorrectionTable
from runtime.versions import Versions

GRACE = 5.0  # seconds that decisions and commands in flight get at the end
DRAIN_STEP = 0.05  # seconds between two looks whether all is done
WATCHDOG = 5.0  # seconds between signs of life to systemd
BROKER = "plugins.broker"  # resolved by name: the runtime imports no plugin

log = structlog.get_logger("app")


class App:
    """All parts of one daemon, wired. Use `opened`; tests and the backtest drive the parts directly."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        policy: Policy,
        plugins: Sequence[Plugin],
        broker: Any,
        modes: dict[str, Any],
    ) -> None:
        self.config, self.journal, self.policy, self.plugins, self.broker = config, journal, policy, plugins, broker
        self.zone = zone_of(config.agent.timezone)
        self.metrics, self.bus = Metrics(), Bus()
        actuators = loading.of_role(plugins, Actuator)
        self.catalogues = Catalogues([plugin.tools() for plugin in actuators])
        self.serving = Serving("base")
        self.memory = Memory(config.policy.consolidate)
        self.doubts = Doubts(journal, self.memory if config.policy.memory else None, self._rendered)
        self.doubts.on_change = self._believe
        self.table = CorrectionTable(self.doubts.trusts)
        self.store = Registry(config.agent.data / "adapters")
        self.ingest = Ingest(journal, self.bus, self.table, self.catalogues.of, self.metrics, self._taught)
        self.perception = Perception(
            journal, self.bus, config.perception, loading.of_role(plugins, Perceiver),
            zone=self.zone, actuators=self.catalogues.actuators, scopes=self.catalogues.scopes,
        )  # fmt: skip
        self.remembering = Remembering(
            journal, policy, self.catalogues, self.memory, window=config.learner.window, weigh=self.doubts.weight
        )
        self.remembering.on_dispute = self._rule
        self.decider = Decider(
            journal, self.bus, policy, self.catalogues, self.table, self.serving, config.policy, self.metrics,
            memory=self.memory if config.policy.memory else None, seen=self.remembering.seen,
        )  # fmt: skip
        guard = Guard(config.guard, config.agent.data / "KILL", clock=time.time, monotonic=time.monotonic)
        self.modes = Modes(dict(config.modes), _trusted(actuators), modes)
        self.apprentice = Apprentice(
            journal, self.catalogues, self.modes, config.guard.apprentice_bound, believes=self.doubts.believes
        )
        self.acting = Acting(
            journal, self.bus, self.catalogues, actuators, loading.of_role(plugins, Rule), guard, self.modes, self.metrics,
            zone=self.zone, expiry=config.guard.expiry, approval=config.guard.approval, apprentice=self.apprentice,
        )  # fmt: skip
        self.releases = Releases(
            journal, self.bus, policy, self.store, self.serving, config.gate, self.metrics, policy.base
        )
        self.releases.on_serve = self.remembering.beside
        self.unlearning = Unlearning(
            journal, self.store, self.serving, self.releases,
            Proving(journal, policy, self.catalogues, self.store, cases.read(config.gate.must_pass)),
        )  # fmt: skip
        self.learner = Learner(
            journal, self.bus, self.catalogues, self.releases, self.unlearning, config, self.metrics, policy.base,
            memory=self.memory if config.policy.memory else None, doubts=self.doubts, timezone=self.zone,
        )  # fmt: skip
        self.unlearning.on_due = self.learner.ask
        self.probation = Probation(journal, policy, self.catalogues, self.releases)
        self.drifting = Drifting(journal, self.learner, self.metrics)
        self.shadowing = Shadowing(
            journal, policy, self.catalogues, self.serving, self.decider, self.releases, feature=config.policy.memory
        )
        policy.on_busy = self.learner.yield_to
        remembered = self.memory if config.policy.memory else None
        self.explaining = Explaining(journal, policy, self.catalogues, self.store, self.serving, remembered)
        self.versions = Versions(journal, policy, self.catalogues, self.store, policy.base)
        self.counterfactuals = Counterfactuals(
            journal, policy, self.catalogues, self.store, self.explaining, self.remembering, self.doubts, self.learner,
            Apart(config, self.catalogues, self.learner, policy.base), memory=config.policy.memory,
        )  # fmt: skip
        self.restored = False
        self.closing = False
        self.children = {plugin.name: Child(plugin.name) for plugin in plugins}
        self.control = Control(
            config, journal, self.bus, self.catalogues, self.ingest, self.decider, self.acting, self.modes,
            self.learner, self.releases, self.unlearning, self.store, self.remembering, self.doubts, self.apprentice, self.restore_taught, self.explaining, self.versions, self.counterfactuals,
            health=self.health, topics=self.topics,
        )  # fmt: skip

    def _taught(self, decision: Decision, feedback: Feedback) -> None:
        if feedback.action is not None:
            self.catalogues.know(decision.scope, feedback.action)

    def _rendered(self, scope: str, action: Action) -> str:
        return self.catalogues.of(scope).render(action)

    async def _believe(self, weights: Mapping[str, float]) -> None:
        """Who is believed has changed."""
        await self.restore_taught()
        await self.remembering.reweigh(weights)
        if self.restored and self.config.policy.memory and self.doubts.found.disputed:
            self.remembering.again()  # another word may stand in a situation now

    async def _rule(self) -> None:
        """People want different things in one situation."""
        await self.doubts.hear(await self.journal.words(self.config.learner.window))

    async def restore_taught(self) -> None:
        """What people taught: the corrections and the replies."""
        words = await self.journal.words(self.config.learner.window)
        self.table.restore(
            await self.journal.corrections(), [word for word in words if word.id in self.doubts.found.upheld]
        )
        examples = await self.journal.examples(self.config.learner.window)
        self.catalogues.know_only((example.scope, example.action) for example in examples)

    async def restore(self) -> None:
        """All that the journal knows: what was taught, the state of the world, the serving adapter."""
        await self.doubts.restore()
        await self.apprentice.restore()
        await self.restore_taught()
        world = await self.journal.last_observations()
        self.perception.restore(world)
        for critic in loading.of_role(self.plugins, Critic):
            for observation in world:
                _noticed(critic, observation)  # it learns how things are; what it would say of the past is dropped
        await self.releases.restore()
        self.restored = True

    async def stages(self, group: asyncio.TaskGroup) -> None:
        """Subscribe everybody first, then start the stages: nothing published from here on is missed."""
        subscribe = self.bus.subscribe
        group.create_task(self.perception.run(subscribe(Observation)), name="perception")
        group.create_task(self.decider.run(subscribe(Percept)), name="decision")
        group.create_task(self.acting.run(subscribe(Decision)), name="action")
        group.create_task(self.learner.run(subscribe(Feedback), self.decider), name="learner")
        group.create_task(self.probation.run(subscribe(Feedback)), name="probation")
        group.create_task(self.counterfactuals.run(), name="proofs")
        group.create_task(self.apprentice.run(subscribe(Feedback)), name="apprentice")
        if self.config.learner.drift:
            group.create_task(self.drifting.run(subscribe(Decision, Feedback)), name="drift")
        group.create_task(self.shadowing.run(subscribe(Decision, lossy=True)), name="shadow")
        if self.config.policy.memory:
            group.create_task(self.remembering.run(subscribe(Feedback)), name="memory")
        group.create_task(self.perception.run_timer(self.config.perception.timer), name="timer")
        for critic in loading.of_role(self.plugins, Critic):
            heard = subscribe(Observation, Percept, Decision, Command, Outcome)
            group.create_task(self._criticise(critic, heard), name=f"critic {critic.name}")
        await self._resume()

    async def _resume(self) -> None:
        """Put back on the bus what the last run left unfinished; what is too old by now is ended by the stages."""
        waiting = await self.journal.unperceived()
        percepts = await self.journal.undecided()
        decisions = await self.journal.unacted()
        if waiting or percepts or decisions:
            log.info("resuming", observations=len(waiting), percepts=len(percepts), decisions=len(decisions))
        for message in (*decisions, *percepts, *waiting):
            await self.bus.publish(message)

    async def _criticise(self, critic: Critic, heard: Subscription[Message]) -> None:
        async for message in heard:
            for feedback in _noticed(critic, message):
                with suppress(CorrigibleError):  # it is in quarantine with its reason
                    await self.ingest.emit(feedback)

    async def operate(self, plugin: Plugin) -> None:
        """A plugin's life under supervision: start, sense if it is a sensor, stop."""
        try:
            await plugin.start()
            if isinstance(plugin, Sensor):
                await plugin.sense(self._emit)
            else:
                await asyncio.Event().wait()
        finally:
            await plugin.stop()

    async def _emit(self, message: Observation | Feedback) -> None:
        """The door for sensors. While we stop, nothing returns: it is not acknowledged, and whoever sent it keeps it."""
        if self.closing:
            await asyncio.Event().wait()
        await self.ingest.emit(message)

    async def drain(self) -> None:
        """Wait for what is under way; what does not make it is found again at the next start."""
        for _ in range(round(GRACE / DRAIN_STEP)):
            if not (self.bus.backlog or self.decider.backlog or self.acting.backlog):
                return
            await asyncio.sleep(DRAIN_STEP)

    def health(self) -> dict[str, Any]:
        ready = {
            "journal": self.journal.healthy,
            "restored": self.restored,
            "policy": self.policy.ready,
            "broker": self.broker is None or self.broker.healthy,
        }
        broken = [
            f"{child.name}: {child.error}"
            for child in self.children.values()
            if child.state in ("restarting", "quarantined")
        ]
        trainer = self.learner.process
        return {
            "ready": ready,
            "processes": {
                "daemon": os.getpid(),
                "policy": self.policy.pid,
                "trainer": trainer.pid if trainer is not None else None,
                "broker": self.broker.pid if self.broker is not None else None,
            },
            "degraded": [f"{name} is not ready" for name, ok in ready.items() if not ok] + broken,
            "plugins": [
                {"name": p.name, "use": f"{type(p).__module__}:{type(p).__name__}", "roles": loading.roles_of(p),
                 "state": self.children[p.name].state, "restarts": self.children[p.name].restarts}
                for p in self.plugins
            ],
        }  # fmt: skip

    def topics(self) -> dict[str, Any]:
        return importlib.import_module("plugins.asyncapi").document(self.config)  # type: ignore[no-any-return]


@asynccontextmanager
async def opened(config: Config, extra: Sequence[Plugin] = (), *, worker: bool = True) -> AsyncIterator[App]:
    """Lock, journal, broker, plugins (and `extra` ones) and policy worker, wired; closed in the reverse order.

    Without `worker` no model is started: enough for what only concerns the journal."""
    config.agent.data.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(lock.hold(config.agent.data))
        journal = await stack.enter_async_context(Journal.open(config.agent.data / "journal.db"))
        broker = await _broker(config, stack)
        context = Context(
            agent=config.agent.name, data=config.agent.data, zone=zone_of(config.agent.timezone),
            broker=broker.config if broker else config.broker.model_copy(update={"mode": "none"}),
        )  # fmt: skip
        plugins = [*loading.load(config.plugin, context), *extra]
        policy = Policy(config.policy, config.agent.data, config.agent.instruction)
        if worker:
            await stack.enter_async_context(policy)
        app = App(config, journal, policy, plugins, broker, await journal.metadata(MODES_KEY) or {})
        yield app


@asynccontextmanager
async def offline(config: Config) -> AsyncIterator[Control]:
    """What may be asked with the daemon down: takes the lock, opens the journal, starts no plugin, no broker, no model."""
    quiet = config.model_copy(update={"broker": config.broker.model_copy(update={"mode": "none"})})
    async with opened(quiet, worker=False) as app:
        await app.doubts.restore()
        await app.apprentice.restore()
        await app.restore_taught()
        if release := await app.journal.serving():
            with suppress(CorrigibleError):  # the base model has no manifest, nor has what is gone from disk
                app.serving.adapter = app.store.manifest(release.adapter).id
        yield app.control


async def run(config: Config) -> None:
    """Run the daemon until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    async with opened(config) as app:
        await serve(app, stopping)
    log.info("stopped")


async def serve(app: App, stopping: asyncio.Event) -> None:
    """Run all coroutines of an opened app until `stopping`; the order of the end is the one written at the top."""
    async with asyncio.TaskGroup() as console:
        page = console.create_task(
            server.serve(app.control, app.config.http, app.config.agent.data, app.metrics), name="console"
        )
        await app.policy.wait_ready()
        await app.restore()
        async with asyncio.TaskGroup() as core:
            await app.stages(core)
            async with asyncio.TaskGroup() as edge:
                for plugin in app.plugins:
                    child = app.children[plugin.name]
                    edge.create_task(supervise(child, lambda p=plugin: app.operate(p)), name=f"plugin {plugin.name}")  # type: ignore[misc]
                edge.create_task(_watchdog(app), name="watchdog")
                systemd.notify("READY=1")
                log.info(
                    "ready", agent=app.config.agent.name, adapter=app.serving.adapter, scopes=len(app.catalogues.scopes)
                )
                await stopping.wait()
                systemd.notify("STOPPING=1")
                log.info("stopping")
                app.closing = True
                await app.drain()
                cancel(edge)
            cancel(core)
        page.cancel()


def cancel(group: asyncio.TaskGroup) -> None:
    for task in tuple(group._tasks):
        task.cancel()


async def _watchdog(app: App) -> None:
    """A sign of life while the loop turns and the journal commits."""
    while True:
        if app.journal.healthy:
            systemd.notify("WATCHDOG=1")
        await asyncio.sleep(WATCHDOG)


async def _broker(config: Config, stack: AsyncExitStack) -> Any:
    """The broker's handle, kept alive in the background; None if the configuration wants none."""
    if config.broker.mode == "none":
        return None
    broker = await importlib.import_module(BROKER).start(config.broker, config.agent.data)
    stack.push_async_callback(broker.stop)
    keeper = asyncio.create_task(broker.run(), name="broker")
    stack.callback(keeper.cancel)
    return broker


def _noticed(critic: Critic, message: Message) -> list[Feedback]:
    try:
        return list(critic.criticise(message))  # type: ignore[arg-type]
    except Exception as error:  # the plugin border
        log.error("critic failed", plugin=critic.name, error=f"{type(error).__name__}: {error}")
        return []


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
