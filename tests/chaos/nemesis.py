"""What befalls the daemon, in an order drawn from a seed: every fault returns the evidence that it really happened."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plugins.broker import Broker
from runtime.learning import jobs, registry
from runtime.messages import Message
from tests.chaos import facts
from tests.chaos.clock import Clock
from tests.chaos.history import History, Spoilt
from tests.chaos.house import Daemon
from tests.chaos.proxy import PUBACK, PUBLISH, Proxy
from tests.chaos.school import Person

PATIENCE = 60.0  # seconds in which a fault must show, and be got over
LOOK = 0.02  # seconds between two looks
STILL = 1.0  # seconds a stopped process stands still
FULL = (b"could not store", b"disk is full", b"disk I/O error")  # what the log says when a commit failed
PACKETS = 10  # that one fault of the link concerns
HOUR = 3600.0  # seconds that the clock jumps
AHEAD = 40  # messages acknowledged meanwhile
QUICK = 3  # trainers that may be done before they are killed
REFUSED = b"adapter is not usable"  # what the log says at start


@dataclass
class World:
    """What the nemesis can lay hands on. `acked` grows with every acknowledged message."""

    daemon: Daemon
    broker: Broker
    proxy: Proxy
    clock: Clock
    person: Person
    history: History
    acked: int = 0

    @property
    def journal(self) -> Path:
        return self.daemon.data / "journal.db"

    def acknowledged(self) -> None:
        self.acked += 1


class Step(Message, frozen=True, kw_only=True):
    """A fault of the plan: once so many messages are acknowledged."""

    after: int
    kind: str


Cause = Callable[[World], Awaitable[str]]


async def until(condition: Callable[[], object], limit: float = PATIENCE) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(LOOK)
    return True


async def kill_agent(world: World) -> str:
    exits, pid = len(world.daemon.exits), world.daemon.pid
    if pid is None:
        return ""
    os.kill(pid, signal.SIGKILL)
    await until(lambda: len(world.daemon.exits) > exits)
    died = world.daemon.exits[exits:]
    return f"process {pid} died of signal 9" if died[:1] == [-signal.SIGKILL] else ""


async def kill_broker(world: World) -> str:
    restarts, pid = world.broker.restarts, world.broker.pid
    if pid is None:
        return ""
    os.kill(pid, signal.SIGKILL)
    started = await until(lambda: world.broker.restarts > restarts)
    return f"broker {pid} died and another runs" if started and world.broker.pid != pid else ""


async def kill_policy(world: World) -> str:
    """The worker: the daemon has to start another by itself."""
    await until(lambda: list(_workers(world)))
    before = list(_workers(world))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    back = await until(lambda: any(pid not in before for pid in _workers(world)))
    return f"worker {before} died and another runs" if before and back else ""


async def stop_agent(world: World) -> str:
    pid = world.daemon.pid
    if pid is None:
        return ""
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: _state(pid) == "T")
    state = _state(pid)
    await asyncio.sleep(STILL)  # the fault itself
    os.kill(pid, signal.SIGCONT)
    return f"process {pid} was in state T for {STILL:.0f} s" if state == "T" else ""


async def cut_link(world: World) -> str:
    await until(lambda: world.proxy.open)  # nobody is there just after the broker died
    greeted = _greeted(world)
    cut = world.proxy.cut()
    back = await until(lambda: _greeted(world) > greeted)
    return f"{cut} connections reset, a session taken up again" if cut and back else ""


async def black_hole(world: World) -> str:
    """The link takes everything and delivers nothing; then it breaks, as what was swallowed left gaps in the stream."""
    swallowed = world.proxy.done["swallowed"]
    world.proxy.swallow()
    shown = await until(lambda: world.proxy.done["swallowed"] >= swallowed + PACKETS, limit=5.0)
    world.proxy.spare()
    cut = await cut_link(world)
    lost = world.proxy.done["swallowed"] - swallowed
    return f"{lost} packets swallowed, {cut}" if (shown or lost) and cut else ""


async def lose_acks(world: World) -> str:
    """The broker never hears that we have it, and must say it again on the next connection."""
    return await _harm(world, "lose", ("up", PUBACK), cut=True)


async def double_messages(world: World) -> str:
    return await _harm(world, "double", ("down", PUBLISH))


async def double_commands(world: World) -> str:
    return await _harm(world, "double", ("up", PUBLISH))


async def slow_link(world: World) -> str:
    return await _harm(world, "delay", ("down", PUBLISH))


async def _harm(world: World, harm: str, packets: tuple[str, int], *, cut: bool = False) -> str:
    before = world.proxy.done[harm]
    world.proxy.harm(harm, packets[0], packets[1], PACKETS)  # type: ignore[arg-type]
    await until(lambda: world.proxy.done[harm] >= before + PACKETS, limit=10.0)
    world.proxy.spare()
    done = world.proxy.done[harm] - before
    reset = await cut_link(world) if cut else ""
    return f"{harm}: {done} packets{', ' + reset if reset else ''}" if done and (reset or not cut) else ""


async def fill_disk(world: World) -> str:
    """No file of the daemon may grow any more (RLIMIT_FSIZE), until a commit failed; then there is room again."""
    pid = world.daemon.pid
    if pid is None:
        return ""
    refused = _refused(world)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
    seen = await until(lambda: _refused(world) > refused, limit=20.0)
    with contextlib.suppress(ProcessLookupError):  # it may have left meanwhile, and be back without the limit
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    return "a commit was refused for want of room" if seen else ""


async def jump_clock(world: World) -> str:
    """The wall clock of the daemon goes an hour ahead, and back; the monotonic one goes on."""
    world.clock.set(HOUR)
    acked = world.acked
    await until(lambda: world.acked > acked + AHEAD, limit=10.0)
    world.clock.set(0.0)
    ahead = facts.newest(world.journal) - time.time()
    return f"the journal holds a time {ahead:.0f} s ahead" if ahead > HOUR / 2 else ""


async def second_agent(world: World) -> str:
    """Somebody starts the daemon once more on the same data: it has to leave, with a sentence."""
    await until(lambda: world.daemon.pid is not None)
    other = await world.daemon.start_another()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE / 3):
            await other.wait()
    if other.returncode is None:
        other.kill()
        await other.wait()
        return ""
    refused = b"another Corrigible" in world.daemon.log.read_bytes()
    return f"the second one left with {other.returncode}" if refused and other.returncode == 1 else ""


async def kill_trainer(world: World) -> str:
    """In the middle of its work: the cycle ends and says why, and what serves goes on serving."""
    for _ in range(QUICK):
        if evidence := await _kill_one_trainer(world):
            return evidence
    return ""


async def _kill_one_trainer(world: World) -> str:
    before = await _begin_to_learn(world)
    working = await until(lambda: list((world.daemon.data / jobs.JOBS).glob(f"*/{jobs.PROGRESS}")))
    pids = list(_children(world.daemon.pid, b"runtime.learning.train"))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    ended = await until(lambda: _ended(world, before))
    _, state, reason = facts.newest_cycle(world.journal)
    told = state == "failed" and signal.SIGKILL.name in reason
    return f"trainer {pids} died, and the cycle {state}: {reason}" if working and pids and ended and told else ""


async def corrupt_adapter(world: World) -> str:
    """The weights that serve rot on the disk, and the daemon is started again: it says so, and serves without them."""
    before = await _begin_to_learn(world)
    await until(lambda: _ended(world, before))
    adapter = facts.serving(world.journal)
    decided = await until(lambda: facts.decided_by(world.journal, adapter))
    if adapter == "base" or not decided:
        return ""
    _rot(world.daemon.data / "adapters" / adapter / registry.WEIGHTS)
    refused = world.daemon.log.read_bytes().count(REFUSED)
    died = await kill_agent(world)
    world.history.append(Spoilt(adapter=adapter, decisions=facts.decisions(world.journal), at=time.time()))
    said = await until(lambda: world.daemon.log.read_bytes().count(REFUSED) > refused, limit=PATIENCE / 3)
    return f"{adapter} changed on the disk, {died}, and its successor refused to serve it" if died and said else ""


async def _begin_to_learn(world: World) -> str:
    """The cycle before the one that begins now, on a correction more than that one had."""
    await until(lambda: facts.newest_decision(world.journal))
    known = facts.feedbacks(world.journal)
    await world.person.correct()
    await until(lambda: facts.feedbacks(world.journal) > known)
    before = facts.newest_cycle(world.journal)[0]
    await world.person.ask_to_learn()
    return before


def _ended(world: World, before: str) -> bool:
    """Whether a cycle after that one is over."""
    id, state, _ = facts.newest_cycle(world.journal)
    return id != before and state != "running"


def _rot(path: Path) -> None:
    """One bit in the middle."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


FAULTS: dict[str, Cause] = {
    "kill_agent": kill_agent, "kill_broker": kill_broker, "kill_policy": kill_policy, "stop_agent": stop_agent,
    "cut_link": cut_link, "black_hole": black_hole, "lose_acks": lose_acks, "double_messages": double_messages,
    "double_commands": double_commands, "slow_link": slow_link, "fill_disk": fill_disk, "jump_clock": jump_clock,
    "second_agent": second_agent, "kill_trainer": kill_trainer, "corrupt_adapter": corrupt_adapter,
}  # fmt: skip
LEARNING = ("kill_trainer", "corrupt_adapter")  # they need a daemon that learns
OTHERS = tuple(kind for kind in FAULTS if kind not in ("kill_agent", "kill_broker"))


def plan(events: int, counts: dict[str, int], seed: int) -> list[Step]:
    """The faults, evenly over the run, in an order that hangs on the seed alone."""
    kinds = [kind for kind, count in sorted(counts.items()) for _ in range(count)]
    random.Random(f"plan {seed}").shuffle(kinds)
    distance = events / (len(kinds) + 1)
    return [Step(after=int(distance * (number + 1)), kind=kind) for number, kind in enumerate(kinds)]


def _greeted(world: World) -> int:
    """How often the broker welcomed the agent."""
    return world.proxy.done["sessions new"] + world.proxy.done["sessions resumed"]


def _refused(world: World) -> int:
    """Commits that failed, as the daemon tells it."""
    return sum(world.daemon.log.read_bytes().count(words) for words in FULL)


def _workers(world: World) -> Iterator[int]:
    return _children(world.daemon.pid, b"tests.chaos.worker")


def _children(pid: int | None, command: bytes) -> Iterator[int]:
    """A process's children that run this."""
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                if command in Path(f"/proc/{child}/cmdline").read_bytes():
                    yield int(child)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except OSError:
        return ""
