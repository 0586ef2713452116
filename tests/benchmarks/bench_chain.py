"""The hash chain: what a link costs the writer, how fast the doctor verifies, and that each of 10,000 forgeries is found.

    python -m tests.benchmarks.bench_chain [--events 20000] [--runs 5] [--forgeries 10000] [--seed 0]

Ingest straight into the journal, 64 messages at once, with the chain and with one that covers nothing, in turn in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

from runtime.journal import Journal, chain, verify
from tests.journal.test_doctor import loop
from tests.stages import observation

GROUP = 64
COST = 50.0  # µs an event
SPEED = 100_000  # rows a second
SMALL = 40  # situations of the journal that is forged


async def ingest(path: Path, events: int) -> float:
    """Seconds."""
    async with Journal.open(path) as journal:
        began = time.perf_counter()
        for start in range(0, events, GROUP):
            numbers = range(start, min(events, start + GROUP))
            await asyncio.gather(
                *(journal.put(observation(f"home/t{n % 50}", b'{"value": %d}' % n, n)) for n in numbers)
            )
        return time.perf_counter() - began


def nothing(self: chain.Chain, connection: sqlite3.Connection, at: float) -> chain.Link:
    return self.head


def cost(events: int, runs: int) -> None:
    found: dict[str, list[float]] = {"with": [], "without": []}
    speeds = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            found["with"].append(asyncio.run(ingest(Path(folder) / "with.db", events)))
            with patch.object(chain.Chain, "extend", nothing):
                found["without"].append(asyncio.run(ingest(Path(folder) / "without.db", events)))
            with closing(sqlite3.connect(Path(folder) / "with.db")) as connection:
                began = time.perf_counter()
                assert list(verify.wrong(connection)) == []
                speeds.append(events / (time.perf_counter() - began))
    more = [(a - b) / events * 1e6 for a, b in zip(found["with"], found["without"], strict=True)]
    ratios = [b / a for a, b in zip(found["with"], found["without"], strict=True)]
    rate = events / statistics.median(found["with"])
    print(
        f"a link costs {statistics.median(more):.1f} µs an event ({min(more):.1f} to {max(more):.1f}; limit {COST:g}); "
        f"{rate:,.0f} events/s, {statistics.median(ratios):.2f} x of those without chain ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    print(
        f"verify: {statistics.median(speeds):,.0f} rows/s ({min(speeds):,.0f} to {max(speeds):,.0f}; limit {SPEED:,})"
    )


async def _small(path: Path) -> None:
    async with Journal.open(path) as journal:
        for number in range(SMALL):
            await journal.put(*loop(number, 1000.0 + number))


def forge(base: sqlite3.Connection, rng: random.Random) -> str:
    """One row: changed, taken out, added or exchanged; what was done."""
    table = rng.choice(("observation", "percept", "decision", "command", "outcome", "feedback", "chain"))
    rows = base.execute(f"SELECT * FROM {table}").fetchall()
    names = [column[1] for column in base.execute(f"PRAGMA table_info({table})")]
    row, how = rng.choice(rows), rng.choice(("change", "remove", "add", "exchange"))
    if how == "change":
        column = rng.choice([n for n in names if n not in ("seq", "perceived", "gone")])
        old = row[names.index(column)]
        new = (old or 0) + rng.random() if isinstance(old, float | None) else _flipped(old, rng)
        base.execute(f"UPDATE {table} SET {column} = ? WHERE seq = ?", (new, row[0]))
        return f"{table} {row[0]}: {column}"
    if how == "remove":
        base.execute(f"DELETE FROM {table} WHERE seq = ?", (row[0],))
    elif how == "add":
        values = [rng.randint(len(rows) + 1, 10 * len(rows)), *(f"{v}x" if isinstance(v, str) else v for v in row[1:])]
        base.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", values)
    else:
        other = rng.choice([one for one in rows if one != row])
        for seq, to in ((row[0], -1), (other[0], row[0]), (-1, other[0])):
            base.execute(f"UPDATE {table} SET seq = ? WHERE seq = ?", (to, seq))
    return f"{table} {row[0]}: {how}"


def _flipped(old: str | bytes, rng: random.Random) -> str | bytes:
    if not old:
        return b"x" if isinstance(old, bytes) else "x"
    at = rng.randrange(len(old))
    if isinstance(old, bytes):
        return old[:at] + bytes([old[at] ^ (1 << rng.randrange(8))]) + old[at + 1 :]
    return old[:at] + chr(ord(old[at]) ^ 1) + old[at + 1 :]


def forgeries(count: int, seed: int) -> None:
    rng, missed, made = random.Random(seed), list[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        asyncio.run(_small(path))
        with closing(sqlite3.connect(path)) as honest:
            while made < count:
                with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
                    honest.backup(copy)
                    try:
                        done = forge(copy, rng)
                    except sqlite3.IntegrityError:
                        continue  # SQLite did not let that happen
                    made += 1
                    if not any(verify.wrong(copy)):
                        missed.append(done)
    print(f"{count:,} forgeries, {len(missed)} not found, seed {seed} {missed[:3] or ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--forgeries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    cost(given.events, given.runs)
    forgeries(given.forgeries, given.seed)


if __name__ == "__main__":
    main()
