"""One chaos run: the scene is set, producers speak, the nemesis strikes, all comes to rest, the checker judges."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from plugins import broker as brokers
from plugins.broker import Broker
from runtime.config import BrokerConfig
from runtime.journal import doctor
from runtime.journal.doctor import Finding
from runtime.messages import Message
from tests.chaos import facts, house, school
from tests.chaos.actuator import DEAF, Actuators
from tests.chaos.checker import check
from tests.chaos.clock import Clock
from tests.chaos.history import Fault, History, Kept, Left, Serving, Synced
from tests.chaos.link import Link
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import FAULTS, LEARNING, PATIENCE, Step, World, plan, until
from tests.chaos.producer import Producer
from tests.chaos.proxy import Proxy

EVERY = 30.0  # seconds between two faults of a soak
RATE = 100.0  # events a second of a soak
TRICKLE = 0.05  # seconds between two events while a fault takes long
KEPT_BACK = 24  # events for each fault that is still to come
SAMPLE = 5.0  # seconds between two looks at memory and descriptors
WINDOW = 64  # messages under way at once
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes
REST = 3 * house.EXPIRY + 10  # seconds in which everything must come to its end


@dataclass(frozen=True)
class Order:
    """What a run is to be: everything follows from it."""

    events: int
    faults: dict[str, int]
    seed: int = 0
    broker: str = "mosquitto"
    mutant: str = ""
    waking: float = house.WAKING  # share of the events that ask for a decision
    deaf: float = DEAF  # share of the commands that no actuator hears
    settle: float = 90.0  # seconds the last messages have to be acknowledged
    duration: float = 0.0  # seconds; > 0: a soak, without end of events and with a fault every `EVERY` seconds
    traced: bool = False  # count the syncs of the journal with strace; then one event after the other, and no faults

    @property
    def learns(self) -> bool:
        return any(self.faults.get(kind) for kind in LEARNING)


class Sample(Message, frozen=True, kw_only=True):
    """The daemon's process at one moment."""

    pid: int
    at: float
    rss: float  # MB
    descriptors: int


@dataclass
class Result:
    order: Order
    findings: list[Finding]
    seconds: float
    counts: dict[str, int]
    serving: list[float] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def broken(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == "broken"]


async def run(order: Order, folder: Path) -> Result:
    """Raises nothing for what the daemon does: that is a finding."""
    began = time.monotonic()
    async with scene(order, folder) as stage:
        await stage.play()
        found = stage.judge()
    found.seconds = time.monotonic() - began
    return found


@asynccontextmanager
async def scene(order: Order, folder: Path) -> AsyncIterator[Stage]:
    """Broker, proxy, daemon, producers and actuators, all connected."""
    folder.mkdir(parents=True, exist_ok=True)
    history = History(folder / "history.jsonl")
    async with AsyncExitStack() as stack:
        stack.callback(history.close)
        broker = await _broker(order, folder, stack)
        proxy = await stack.enter_async_context(Proxy(broker.config.port).listening())
        model = await asyncio.to_thread(school.model, folder / "model") if order.learns else None
        config = house.write_config(folder, proxy.port, model)
        clock = Clock(folder / "clock")
        trace = folder / "trace"
        daemon = house.Daemon(config, mutant=order.mutant, clock=clock, prefix=_tracing(trace) if order.traced else ())
        person = school.Person(broker.config.port, house.AGENT, config, daemon.data / "journal.db")
        await stack.enter_async_context(person.link.connected())
        world = World(daemon=daemon, broker=broker, proxy=proxy, clock=clock, person=person, history=history)
        actuators = Actuators(broker.config.port, house.AGENT, history, order.deaf)
        await stack.enter_async_context(actuators.link.connected())
        producers = [
            Producer(broker.config.port, house.AGENT, f"producer{number}", history, world.acknowledged)
            for number in range(house.PRODUCERS)
        ]
        for producer in producers:
            await stack.enter_async_context(producer.link.connected())
        await producers[0].link.publish(*house.KEPT, retain=True)
        history.append(Kept(payload=house.KEPT[1]))
        await stack.enter_async_context(daemon.running())
        yield Stage(order, world, producers, actuators, history)


async def _broker(order: Order, folder: Path, stack: AsyncExitStack) -> Broker:
    broker = await brokers.start(BrokerConfig(mode=order.broker, port=0), folder)
    stack.push_async_callback(broker.stop)
    keeper = asyncio.create_task(broker.run(), name="chaos broker")
    stack.callback(keeper.cancel)
    return broker


class Stage:
    """A run under way."""

    def __init__(
        self, order: Order, world: World, producers: list[Producer], actuators: Actuators, history: History
    ) -> None:
        self._order, self._world, self._producers = order, world, producers
        self._actuators, self._history = actuators, history
        self._limit = 0  # events that may be sent before the next fault
        self._more = asyncio.Event()
        self.samples: list[Sample] = []
        self.steps: list[Step] = plan(order.events, order.faults, order.seed)

    async def play(self) -> None:
        """Events and faults until all events are acknowledged, then rest."""
        speaking = asyncio.create_task(self._speak(), name="chaos events")
        striking = asyncio.create_task(self._soak() if self._order.duration else self._strike(), name="chaos faults")
        with contextlib.suppress(TimeoutError):
            await striking
            async with asyncio.timeout(self._order.settle + self._order.events / 50):
                await speaking
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        journal = self._world.journal
        if journal.exists():
            await until(lambda: facts.at_rest(journal), limit=REST)
        await self._listen_for_what_is_left()
        code = await self._world.daemon.stop()
        self._history.append(Left(exit_code=code, at=time.time()))
        if self._order.traced:
            self._history.append(
                Synced(events=self._order.events, syncs=_syncs(self._world.daemon.data.parent / "trace"))
            )

    async def _speak(self) -> None:
        room = asyncio.Semaphore(1 if self._order.traced else WINDOW)
        async with asyncio.TaskGroup() as group:
            for number, event in enumerate(
                itertools.islice(house.events(self._order.seed, self._order.waking), self._order.events)
            ):
                while number >= self._limit:
                    self._more.clear()
                    await self._more.wait()
                await room.acquire()
                task = group.create_task(self._producers[number % len(self._producers)].send(event))
                task.add_done_callback(lambda _: room.release())

    async def _strike(self) -> None:
        """One fault after another; messages are always under way when one comes."""
        for left, step in zip(range(len(self.steps) - 1, -1, -1), self.steps, strict=True):
            self._allow(step.after + WINDOW)
            if not await until(lambda due=step.after: self._world.acked >= due, limit=2 * PATIENCE):  # type: ignore[misc]
                break  # nothing is acknowledged any more: the checker will say so
            most = self._order.events - left * KEPT_BACK
            self._allow(min(most, step.after + 4 * WINDOW))
            await self.strike(step.kind, most)
        self._allow(self._order.events)

    async def _trickle(self, most: int) -> None:
        """A fault that takes long, such as one that waits for a trainer, finds messages under way, too."""
        while self._limit < most:
            await asyncio.sleep(TRICKLE)
            self._allow(self._limit + 1)

    async def _soak(self) -> None:
        """A fault drawn from the seed every EVERY seconds; events at a steady rate; a look at the process in between."""
        drawn = random.Random(f"soak {self._order.seed}")
        kinds = [kind for kind, count in sorted(self._order.faults.items()) if count]
        began = due = time.monotonic()
        while (now := time.monotonic()) < began + self._order.duration:
            self._allow(int((now - began) * RATE))
            if pid := self._world.daemon.pid:
                self.samples += sampled(pid)
            if now >= due + EVERY and kinds:
                due = now
                self._allow(self._limit + WINDOW)
                await self.strike(drawn.choice(kinds), self._order.events)
            await asyncio.sleep(SAMPLE / 5)
        self._allow(self._order.events)  # the last ones, so that it ends

    def _allow(self, limit: int) -> None:
        self._limit = max(self._limit, limit)
        self._more.set()

    async def strike(self, kind: str, most: int) -> None:
        """Inject, and wait until the daemon got over it. Meanwhile up to `most` events may be sent."""
        trickling = asyncio.create_task(self._trickle(most), name="chaos trickle")
        try:
            await self._inject(kind)
        finally:
            trickling.cancel()

    async def _inject(self, kind: str) -> None:
        began, acked = time.monotonic(), self._world.acked
        starts = self._world.daemon.starts
        evidence = await FAULTS[kind](self._world)
        if kind in ("kill_agent", "corrupt_adapter"):  # both kill it
            await until(lambda: self._world.daemon.starts > starts)
            acked = self._world.acked
        all_sent = acked >= self._order.events
        recovered = all_sent or await until(lambda: self._world.acked > acked)
        if kind == "kill_agent" and recovered and not all_sent:
            self._history.append(Serving(seconds=time.monotonic() - began, at=time.time()))
        self._history.append(Fault(kind=kind, evidence=evidence, recovered=recovered, at=time.time()))

    async def _listen_for_what_is_left(self) -> None:
        """A newcomer at the actuators' topics hears only what the broker retains, which must be nothing."""
        heard: list[str] = []
        probe = Link(self._world.broker.config.port, "probe", ("act/+/set",), self._actuators.note_retained)
        async with asyncio.timeout(PATIENCE), probe.connected():
            marker = Link(
                self._world.broker.config.port, "marker", ("chaos/marker",), lambda m: heard.append(m.topic.value)
            )
            async with marker.connected():
                await marker.publish("chaos/marker", b"")  # retained messages come with the subscription, before this
                await until(lambda: heard, limit=5.0)

    def judge(self) -> Result:
        journal, records = self._world.journal, self._history.records
        findings = check(records, facts.read(journal), house.envelope())
        findings += [replaced for replaced in _doctor(journal) if replaced.state == "broken"]
        counts = Counter(type(record).__name__ for record in records)
        counts["resent"] = sum(producer.resent for producer in self._producers)
        return Result(
            self._order, findings, 0.0, dict(counts),
            serving=[record.seconds for record in records if isinstance(record, Serving)],
            faults=[record for record in records if isinstance(record, Fault)], samples=self.samples,
        )  # fmt: skip


def _doctor(journal: Path) -> list[Finding]:
    """Under its own name, so that both words on an invariant are seen."""
    return [
        Finding(invariant=f"doctor {f.invariant}", title=f.title, state=f.state, detail=f.detail)
        for f in doctor.examine(journal)
    ]


def sampled(pid: int) -> list[Sample]:
    """One look; none if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return []
    return [Sample(pid=pid, at=time.monotonic(), rss=pages * PAGE / 1e6, descriptors=descriptors)]


def _tracing(file: Path) -> tuple[str, ...]:
    return ("strace", "-D", "-f", "-qq", "-y", "-e", "trace=fdatasync,fsync", "-e", "signal=none", "-o", str(file))


def _syncs(file: Path) -> int:
    """How often the journal's log was forced to the disk."""
    return sum("journal.db-wal" in line for line in file.read_text().splitlines())


async def hunt(mutant: str, folder: Path, *, broker: str = "mosquitto", seed: int = 5) -> Result:
    """A small run with a planted bug and just the faults that bring it to light."""
    bug = MUTANTS[mutant]
    events = 40 if bug.traced else bug.events
    return await run(
        Order(
            events, bug.needs, seed, broker, mutant, waking=bug.waking, deaf=bug.deaf, settle=20.0, traced=bug.traced
        ),
        folder,
    )
