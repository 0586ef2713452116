"""THE LOOP on one screen: opens the parts, starts them in order, and stops them in the reverse.

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
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Literal

import structlog

from runtime import condition, systemd
from runtime import plugins as loading
from runtime.boots import Boots
from runtime.bus import Subscription
from runtime.config import Config
from runtime.console import server
from runtime.control import Control
from runtime.errors import CorrigibleError, Unwritable
from runtime.guard import Guard
from runtime.isolation import loading as isolation
from runtime.isolation import recall
from runtime.isolation.remote import Remote
from runtime.journal import AGAIN, Journal, anchor, backups, lock, rescue, retention
from runtime.journal.anchor import Anchors
from runtime.journal.notes import MODES_KEY
from runtime.learning import jobs
from runtime.messages import Command, Decision, Feedback, Message, Observation, Outcome, Percept
from runtime.parts import Parts, zone_of
from runtime.policy.client import Policy
from runtime.roles import Context, Critic, Plugin, Sensor, answer
from runtime.safe import reduced
from runtime.supervision import insist, stage, supervise

FENCE_KEY = "fence"  # the journal's note of the newest start
GRACE = 5.0  # seconds that decisions and commands in flight get at the end
DRAIN_STEP = 0.05  # seconds between two looks whether all is done
WATCHDOG = 5.0  # seconds between signs of life to systemd
LOADING = 60.0  # seconds after which a model that is not there yet is worth a word
BOOTS = "boots.json"  # in the data directory
KILL = "KILL"  # in the data directory: while it is there, nothing is commanded
Next = Literal["stop", "normal", "safe", "trial"]  # what comes after a life
BROKER = "plugins.broker"  # resolved by name: the runtime imports no plugin

log = structlog.get_logger("app")


class App(Parts):
    """One daemon's parts and their life. Use `opened`; tests and the backtest drive the parts directly."""

    closing = False
    shut = ""  # why nothing is taken in for now
    next: Next = "stop"  # what comes after this life

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.leaving = asyncio.Event()
        self.control.switching.on_safe = lambda on: self.leave(to_safe=on)

    async def restore(self) -> None:
        """All that the journal knows but for the weights: what was taught, the state of the world."""
        await self.doubts.restore()
        await self.apprentice.restore()
        await self.restore_taught()
        self.guard.pace.restore(await self.journal.commanded(self.catalogues.actuators), time.time())
        await self.ingest.marks.restore()
        world = await self.journal.last_observations()
        self.perception.restore(world)
        for critic in loading.of_role(self.plugins, Critic):
            for observation in world:
                await _noticed(
                    critic, observation
                )  # it learns how things are; what it would say of the past is dropped
        self.restored = True

    async def wake(self) -> None:
        """Load what serves. The table and the rules do not wait for it. Raises Unavailable where there is no model."""
        await self.policy.wait_ready()
        await self.releases.restore()
        self.decider.awake.set()
        log.info("awake", adapter=self.serving.adapter)

    async def once_awake(self, work: Callable[[], Awaitable[None]], patience: float | None = None) -> None:
        """Or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self.decider.awake.wait()
        await work()

    async def stages(self, group: asyncio.TaskGroup) -> None:
        """Subscribe everybody first, then start the stages: nothing published from here on is missed."""
        subscribe = self.bus.subscribe
        if not self.safe:
            self._watching(group)
            taught = subscribe(Feedback)
            group.create_task(self.once_awake(lambda: self.learner.run(taught, self.decider)), name="learner")
            if self.config.policy.memory:
                remembered = subscribe(Feedback)
                group.create_task(self.once_awake(lambda: self.remembering.run(remembered)), name="memory")
        group.create_task(self.perception.run(subscribe(Observation)), name="perception")
        group.create_task(self.decider.run(subscribe(Percept)), name="decision")
        group.create_task(self.acting.run(subscribe(Decision)), name="action")
        group.create_task(self.apprentice.run(subscribe(Feedback)), name="apprentice")
        group.create_task(self.ingest.marks.run(), name="marks")
        settings = self.config.journal
        group.create_task(
            backups.regularly(self.config.agent.data, settings.backup_every, settings.backups), name="backups"
        )
        anchors = Anchors.of(self.config.agent.data, settings.anchors)
        group.create_task(anchor.regularly(lambda: self.journal.head, anchors), name="anchors")
        group.create_task(self.perception.run_timer(self.config.perception.timer), name="timer")
        for critic in loading.of_role(self.plugins, Critic):
            heard = subscribe(
                Observation, Percept, Decision, Command, Outcome, lossy=critic.isolated
            )  # nobody waits for those
            group.create_task(self._criticise(critic, heard), name=f"critic {critic.name}")
        await self._resume()
        group.create_task(retention.regularly(self.journal, settings.keep_days), name="retention")

    def _watching(self, group: asyncio.TaskGroup) -> None:
        """The stages that only look on: one that fails is started again with the queue it had."""
        subscribe = self.bus.subscribe
        judged, decided = subscribe(Feedback), subscribe(Decision, lossy=True)
        stages: dict[str, Callable[[], Awaitable[None]]] = {
            "probation": lambda: self.probation.run(judged),
            "proofs": self.counterfactuals.run,
            "shadow": lambda: self.shadowing.run(decided),
        }
        if self.config.learner.drift:
            noticed: Subscription[Decision | Feedback] = subscribe(Decision, Feedback)
            stages["drift"] = lambda: self.drifting.run(noticed)
        for name, run in stages.items():
            self.side[name] = stage(name)
            group.create_task(self.once_awake(partial(insist, self.side[name], run)), name=name)

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
            for feedback in await _noticed(critic, message):
                with suppress(CorrigibleError):  # it is in quarantine with its reason
                    await self._emit(feedback)

    async def operate(self, plugin: Plugin) -> None:
        """A plugin's life under supervision: start, sense if it is a sensor, stop."""
        try:
            if isinstance(plugin, Remote):
                return await plugin.live(self._emit)
            await plugin.start()
            if isinstance(plugin, Sensor):
                await plugin.sense(self._emit)
            else:
                await asyncio.Event().wait()
        finally:
            await plugin.stop()

    async def _emit(self, message: Observation | Feedback) -> None:
        """The door for sensors. While the journal can have nothing, whoever brings something waits, and so does who sends it to
        them; while we stop, nothing returns: it is not acknowledged, and whoever sent it keeps it."""
        while not self.closing:
            try:
                await self.ingest.emit(message)
                return self._door_is(shut="")
            except Unwritable as error:
                self._door_is(shut=str(error))
            await asyncio.sleep(AGAIN)
        await asyncio.Event().wait()
        return None

    def _door_is(self, *, shut: str) -> None:
        """Say it when it changes."""
        if bool(shut) == bool(self.shut):
            return
        self.shut = shut
        if shut:
            log.error("nothing is taken in until the journal can store it", reason=shut)
        else:
            log.info("the journal stores again")

    def leave(self, *, to_safe: bool) -> None:
        """A person's word: stop in good order and start again, with everything or in safe mode."""
        self.next = "safe" if to_safe else "normal"
        self.leaving.set()

    async def drain(self) -> None:
        """Wait for what is under way; what does not make it is found again at the next start."""
        for _ in range(round(GRACE / DRAIN_STEP)):
            if not (self.bus.backlog or self.decider.backlog or self.acting.backlog):
                return
            await asyncio.sleep(DRAIN_STEP)


@asynccontextmanager
async def opened(
    config: Config, extra: Sequence[Plugin] = (), *, live: bool = True, boots: Boots | None = None, safe: str = ""
) -> AsyncIterator[App]:
    """Lock, journal, broker, plugins (and `extra` ones) and policy worker, wired; closed in the reverse order.

    Unless it is to be `live`, no model and no isolated plugin is started: enough for what concerns the journal. `safe` is a reason
    for safe mode; `boots`, which counts this start, may have one, too."""
    config.agent.data.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(lock.hold(config.agent.data))
        safe = (boots.begin() if boots else "") or safe
        rules_missing = False
        if safe:
            config, rules_missing = reduced(config)
            log.warning("safe mode", why=safe, plugins=[entry.get("use") for entry in config.plugin])
        await asyncio.to_thread(jobs.tidy, config.agent.data)
        anchors = Anchors.of(config.agent.data, config.journal.anchors)
        await asyncio.to_thread(rescue.ensure, config.agent.data, anchors)
        journal = await stack.enter_async_context(
            Journal.open(config.agent.data / "journal.db", ballast=config.journal.ballast)
        )
        broker = await _broker(config, stack)
        zone = zone_of(config.agent.timezone)
        guard = Guard(config.guard, config.agent.data / KILL, clock=time.time, monotonic=time.monotonic, zone=zone)
        context = Context(
            agent=config.agent.name, data=config.agent.data, zone=zone, permits=guard.permits, kill=guard.kill,
            armed=lambda: not guard.killed, settled=lambda id, problem: app.acting.settled(id, problem),
            shed=lambda name: app.shedding.count(name), fence=await _fence(journal),
            notice=lambda kind, text: app.notices.tell(kind, text),
            broker=broker.config if broker else config.broker.model_copy(update={"mode": "none"}),
        )  # fmt: skip
        apart = await _apart(config, context, journal, live, stack)
        plugins = [*loading.load(config.plugin, context, apart), *extra]
        policy = Policy(config.policy, config.agent.data, config.agent.instruction)
        if live and not safe:
            await stack.enter_async_context(policy)
        switched = {} if rules_missing else await journal.metadata(MODES_KEY) or {}
        app = App(config, journal, policy, plugins, broker, switched, guard, safe)
        stack.push_async_callback(app.shedding.close)
        stack.push_async_callback(app.notices.close)
        yield app


@asynccontextmanager
async def offline(config: Config) -> AsyncIterator[Control]:
    """What may be asked with the daemon down: takes the lock, opens the journal, starts no plugin, no broker, no model."""
    quiet = config.model_copy(update={"broker": config.broker.model_copy(update={"mode": "none"})})
    async with opened(quiet, live=False) as app:
        await app.doubts.restore()
        await app.apprentice.restore()
        await app.restore_taught()
        if release := await app.journal.serving():
            with suppress(CorrigibleError):  # the base model has no manifest, nor has what is gone from disk
                app.serving.adapter = app.store.manifest(release.adapter).id
        yield app.control


async def run(config: Config, *, safe: bool = False) -> None:
    """Run the daemon until SIGTERM or SIGINT, in safe mode if that is wanted or the last starts did not live."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    loop.add_signal_handler(signal.SIGUSR1, _pull, config)  # also while it starts: a rescue may take minutes
    boots = Boots(config.agent.data / BOOTS, config.supervision)
    wanted = "a person asked for it" if safe or config.supervision.safe else ""
    again: Next = "normal"
    while again != "stop":
        async with opened(config, boots=boots, safe=wanted) as app:
            loop.add_signal_handler(signal.SIGUSR1, app.guard.kill, True)
            await serve(app, stopping, boots)
            again = app.next
        wanted = "a person asked for it" if again == "safe" else ""
        if again != "trial":
            boots.ended()
    log.info("stopped")


def _pull(config: Config) -> None:
    """The kill switch, before there is a guard."""
    config.agent.data.mkdir(parents=True, exist_ok=True)
    (config.agent.data / KILL).touch()


async def serve(app: App, stopping: asyncio.Event, boots: Boots | None = None) -> None:
    """Run all coroutines of an opened app until `stopping`, or until it has to start again; the order of the end is the one
    written at the top."""
    async with asyncio.TaskGroup() as console:
        page = console.create_task(
            server.serve(app.control, app.config.http, app.config.agent.data, app.metrics), name="console"
        )
        await app.restore()
        async with asyncio.TaskGroup() as core:
            if not app.safe:
                app.decider.awake.clear()
                core.create_task(app.wake(), name="model")
            await app.stages(core)
            async with asyncio.TaskGroup() as edge:
                for plugin in app.plugins:
                    child = app.children[plugin.name]
                    edge.create_task(supervise(child, lambda p=plugin: app.operate(p)), name=f"plugin {plugin.name}")  # type: ignore[misc]
                edge.create_task(_watchdog(app), name="watchdog")
                edge.create_task(app.stalls.run(), name="stalls")
                watch = condition.Watch(app.stands, app.journal, app.metrics)
                edge.create_task(app.once_awake(watch.run, LOADING), name="condition")
                if boots is not None:
                    edge.create_task(_last(app, boots), name="boots")
                systemd.notify("READY=1")
                log.info(
                    "ready", agent=app.config.agent.name, adapter=app.serving.adapter, scopes=len(app.catalogues.scopes)
                )
                await _either(stopping, app.leaving)
                if stopping.is_set():
                    app.next = "stop"
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
    """A sign of life while the loop turns and the journal's writer lives: a disk that takes nothing is waited for, and starting
    anew would not mend it."""
    while True:
        if app.journal.alive:
            systemd.notify("WATCHDOG=1")
        await asyncio.sleep(WATCHDOG)


async def _apart(
    config: Config, context: Context, journal: Journal, live: bool, stack: AsyncExitStack
) -> dict[int, Remote]:
    """The isolated plugins: running until the stack is closed, or as they were."""
    if not live:
        return await recall.recalled(config.plugin, context, journal)
    apart = await isolation.introduced(config.plugin, context)
    for remote in apart.values():
        stack.push_async_callback(remote.stop)
    await recall.keep(journal, apart.values())
    return apart


async def _fence(journal: Journal) -> int:
    """Larger than that of every start before, also than those that a restored journal does not know of."""
    fence = max(int(await journal.metadata(FENCE_KEY) or 0) + 1, int(time.time()))
    await journal.set_metadata(FENCE_KEY, fence, patient=True)
    return fence


async def _last(app: App, boots: Boots) -> None:
    """Say that this start has lived. In safe mode try everything again after a while, on trial."""
    settings = app.config.supervision
    if not app.safe:
        await asyncio.sleep(settings.lived)
        boots.lived()
    elif settings.stable and not settings.safe:
        await asyncio.sleep(settings.stable)
        boots.retry()
        app.next = "trial"
        app.leaving.set()


async def _either(*events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _broker(config: Config, stack: AsyncExitStack) -> Any:
    """The broker's handle, kept alive in the background; None if the configuration wants none."""
    if config.broker.mode == "none":
        return None
    broker = await importlib.import_module(BROKER).start(config.broker, config.agent.data)
    stack.push_async_callback(broker.stop)
    keeper = asyncio.create_task(broker.run(), name="broker")
    stack.callback(keeper.cancel)
    return broker


async def _noticed(critic: Critic, message: Message) -> list[Feedback]:
    try:
        return list(await answer(critic.criticise(message)))  # type: ignore[arg-type]
    except Exception as error:  # the plugin border
        log.error("critic failed", plugin=critic.name, error=f"{type(error).__name__}: {error}")
        return []
