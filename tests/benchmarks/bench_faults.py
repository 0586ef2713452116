"""How long the loop stands still while an isolated plugin goes wrong, in every way that `tests/isolation` knows.

    python -m tests.benchmarks.bench_faults

Each fault happens for real beside an honest plugin, from the start of the processes to the end of the faulty one. The first figure
is the longest time that a task which wants to run every 5 ms had to wait beyond that. The second is how much of such a wait the
loop's own thread computed: the rest it stood in line for a processor or waited in a call of the system. Rows `(none)` are the
honest plugin alone, in between, so they say what the machine itself takes. No test asserts these times.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from runtime import supervision
from runtime.roles import Actuator
from tests.isolation.houses import House, opened
from tests.isolation.test_faults import ENDING, UNUSABLE, faulty
from tests.isolation.test_roles import EVERYTHING, ON, command

TICK = 0.005  # seconds
LONGEST = 20.0  # seconds a fault is watched that ends in nothing
FLOODED = 300  # messages of a flood
BETWEEN = 6  # faults between two looks at the machine alone
Wait = Callable[[House], Awaitable[None]]

GOES_ON = {  # faults that end nothing: what is waited for
    "flood": FLOODED,
    "print megabytes": 1,
    "look for secrets": 1,
    "kill the daemon": 1,
    "hang in stop": 1,
}


@dataclass(frozen=True)
class Row:
    """The longest stall and the longest computing in milliseconds; `works`: the neighbour is not hit."""

    name: str
    stall: float
    computed: float
    works: bool


class Sampler:
    """Wants to run every TICK, and notes how late it was at worst."""

    def __init__(self) -> None:
        self.worst = self.computed = 0.0

    async def run(self) -> None:
        while True:
            due, spent = time.perf_counter() + TICK, time.thread_time()
            await asyncio.sleep(TICK)
            self.worst = max(self.worst, time.perf_counter() - due)
            self.computed = max(self.computed, time.thread_time() - spent)


async def measured(name: str, entry: dict[str, Any] | None, wait: Wait) -> Row:
    """One fault beside an honest plugin."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        sampler = Sampler()
        sampling = asyncio.create_task(sampler.run())
        entries = [EVERYTHING] if entry is None else [EVERYTHING, entry]
        async with opened(Path(folder) / "data", *entries) as found:
            await wait(found)
            works = await neighbour(found)
        sampling.cancel()
    return Row(name, sampler.worst * 1000, sampler.computed * 1000, works)


async def neighbour(found: House) -> bool:
    plugin = found.plugins["all"]
    assert isinstance(plugin, Actuator)
    await found.hears(4, "all")
    outcome = await plugin.act(command(ON))
    return outcome.status == "applied" and found.children["all"].restarts == 0


async def nothing(found: House) -> None:
    await found.hears(4, "all")


async def ended(found: House) -> None:
    await found.tasks["faulty"]


def said(count: int) -> Wait:
    async def wait(found: House) -> None:
        async with asyncio.timeout(LONGEST):
            await found.hears(count, "faulty")

    return wait


async def main() -> None:
    supervision.FIRST_BACKOFF, supervision.INTENSITY = 0.0, 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    rows: list[Row] = []
    for number, (name, entry, wait) in enumerate(cases()):
        if number % BETWEEN == 0:
            rows.append(await measured("(none)", None, nothing))
        rows.append(await measured(name, entry, wait))
    for row in rows:
        verdict = "the others work" if row.works else "THE OTHERS ARE HIT"
        print(f"{row.name:<60} {row.stall:8.1f} ms {row.computed:8.1f} ms computed  {verdict}")
    faults = [row for row in rows if row.name != "(none)"]
    alone = [row for row in rows if row.name == "(none)"]
    print(f"{len(faults)} faults, {sum(row.works for row in faults)} contained")
    for what, among in (("faults", faults), ("without a fault", alone)):
        stalls, computed = sorted(row.stall for row in among), sorted(row.computed for row in among)
        print(
            f"{what}: longest stall {stalls[-1]:.1f} ms (median {stalls[len(stalls) // 2]:.1f}), "
            f"longest computing {computed[-1]:.1f} ms (median {computed[len(computed) // 2]:.1f})"
        )


def cases() -> Iterator[tuple[str, dict[str, Any], Wait]]:
    """What happens, the faulty plugin's entry, and until when it is watched."""
    for fault in ENDING:
        if fault.needs[0]:
            name = " ".join([fault.how, *(f"{key}={value}" for key, value in fault.permissions.items())])
            yield name, faulty(fault.how, **fault.permissions), ended
    for how, count in GOES_ON.items():
        yield how, faulty(how, rate=500.0, patience=20.0), said(count)
    for how, target in (("read", "/etc/passwd"), ("write", "/tmp/faulty-was-here")):
        yield f"{how} {target}", faulty(how, target), said(1)
    for entry, reason in UNUSABLE:
        yield f"cannot be used: {reason[:40]}", {**entry, "name": "faulty"}, ended


if __name__ == "__main__":
    asyncio.run(main())
