"""`make bench`: the bus against a bare queue, the journal against raw SQLite, decisions and the swap through the real worker."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runtime.bus import Bus
from runtime.catalogue import DO_NOTHING, Catalogue, Tool
from runtime.config import LearnerConfig, PolicyConfig
from runtime.journal import Journal
from runtime.learning import jobs
from runtime.learning.trainer import Trainer
from runtime.messages import Action, Example, Observation
from runtime.policy.client import Policy

REPEATS = 5
MESSAGES = 20_000
ROWS = 6_400
GROUP = 64  # rows a commit of the raw peer
DECISIONS = 40
LAMP = Catalogue(
    tools=(DO_NOTHING, Tool(name="lamp", arguments={"level": {"enum": ["off", "dim", "bright"]}}, required=("level",)))
)
Measured = Callable[[], Awaitable[float]]


def observation(number: int) -> Observation:
    return Observation(id=f"ob-{number}", topic="home/room", payload=b'{"light": 3}', at=float(number))


async def bare_queue() -> float:
    """Messages a second through an asyncio.Queue of the same bound."""
    queue: asyncio.Queue[Observation] = asyncio.Queue(1024)
    message = observation(0)

    async def take() -> None:
        for _ in range(MESSAGES):
            await queue.get()

    return await _rate(MESSAGES, take(), lambda: queue.put(message))


async def our_bus() -> float:
    """Messages a second through the bus to one subscriber."""
    bus, message = Bus(), observation(0)
    subscription = bus.subscribe(Observation)

    async def take() -> None:
        for _ in range(MESSAGES):
            await subscription.get()

    return await _rate(MESSAGES, take(), lambda: bus.publish(message))


async def _rate(count: int, taking: Awaitable[None], put: Callable[[], Awaitable[None]]) -> float:
    consumer = asyncio.ensure_future(taking)
    started = time.perf_counter()
    for _ in range(count):
        await put()
    await consumer
    return count / (time.perf_counter() - started)


async def raw_sqlite() -> float:
    """Durable rows a second of plain sqlite3, GROUP rows a commit, WAL and FULL as in the journal."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "raw.db", isolation_level=None)
        connection.executescript(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (id TEXT UNIQUE, at REAL, payload BLOB)"
        )
        started = time.perf_counter()
        for start in range(0, ROWS, GROUP):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO t VALUES (?, ?, ?)", [(f"ob-{n}", float(n), b"1") for n in range(start, start + GROUP)]
            )
            connection.execute("COMMIT")
        rate = ROWS / (time.perf_counter() - started)
        connection.close()
        return rate


async def our_journal() -> float:
    """Durable rows a second of the journal, every row a `put` of its own, GROUP of them waiting at a time."""
    with tempfile.TemporaryDirectory() as folder:
        async with Journal.open(Path(folder) / "journal.db") as journal:
            started = time.perf_counter()
            for start in range(0, ROWS, GROUP):
                await asyncio.gather(*(journal.put(observation(n)) for n in range(start, start + GROUP)))
            return ROWS / (time.perf_counter() - started)


async def decisions(policy: Policy, adapter: str) -> float:
    """Live decisions a second, one after the other."""
    started = time.perf_counter()
    for number in range(DECISIONS):
        await policy.score_one(f"evening, dark, cold, someone is here, {number}", LAMP, adapter)
    return DECISIONS / (time.perf_counter() - started)


async def swap_gap(policy: Policy, directory: Path, number: int) -> float:
    """Milliseconds between the last decision on the base and the first on an adapter that is loaded meanwhile."""
    adapter = f"bench{number}"
    loading = asyncio.create_task(policy.load(adapter, directory))
    last = time.perf_counter()
    while not loading.done():
        await policy.score_one("evening, dark", LAMP, "base")
        last = time.perf_counter()
    await policy.score_one("evening, dark", LAMP, adapter)
    return (time.perf_counter() - last) * 1000


async def make_adapter(policy: Policy, folder: Path) -> Path:
    """A small adapter trained by the real trainer."""
    settings = LearnerConfig(epochs=1, seen=0, min_steps=1, layers="top:15", word_drop=0, dropout=0).model_dump(
        mode="json"
    )
    examples = [
        Example(
            id=f"fb-{n}",
            scope="room",
            text=f"evening, {n}",
            action=Action(tool="lamp", arguments={"level": "dim"}),
            at=float(n),
        )
        for n in range(4)
    ]
    job = jobs.Job(base=policy.base(), instruction="You run a home.", catalogues={"room": LAMP}, settings=settings)
    jobs.write(folder / "job", job, examples, [])
    trainer = Trainer(nice=0, threads=1)
    await trainer.start(folder / "job")
    await trainer.report()
    return folder / "job" / jobs.ADAPTER


async def main() -> None:
    table = Table(title="bench_loop")
    for heading in ("figure", "median", "least", "most", "peer", "median of peer", "ratio"):
        table.add_column(heading, justify="left" if heading in ("figure", "peer") else "right")
    await _pair(table, "bus, messages/s", our_bus, "asyncio.Queue", bare_queue)
    await _pair(table, "journal, durable rows/s", our_journal, f"sqlite3, {GROUP} rows a commit", raw_sqlite)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with Policy(PolicyConfig(), folder, "You run a home.") as policy:
            await policy.wait_ready()
            directory = await make_adapter(policy, folder)
            await decisions(policy, "base")
            base = [await decisions(policy, "base") for _ in range(REPEATS)]
            gaps = [await swap_gap(policy, directory, number) for number in range(REPEATS)]
            adapted = [await decisions(policy, "bench0") for _ in range(REPEATS)]
    _row(table, "decisions/s, adapter (4 actions)", adapted, "base model", base)
    _row(table, "swap gap, ms (one decision included)", gaps, "one decision, ms", [1000 / rate for rate in adapted])
    Console(width=130).print(table)


async def _pair(table: Table, name: str, ours: Measured, peer: str, theirs: Measured) -> None:
    """Both by turns, so that what else the machine does falls on both."""
    pairs = [(await ours(), await theirs()) for _ in range(REPEATS)]
    _row(table, name, [a for a, _ in pairs], peer, [b for _, b in pairs])


def _row(table: Table, name: str, ours: list[float], peer: str, theirs: list[float]) -> None:
    median, other = statistics.median(ours), statistics.median(theirs)
    figures = (f"{value:,.1f}" for value in (median, min(ours), max(ours)))
    table.add_row(name, *figures, peer, f"{other:,.1f}", f"{median / other:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
