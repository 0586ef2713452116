"""How long the loop stands still while an isolated plugin goes wrong, in every way that `tests/isolation` knows.

    python -m tests.benchmarks.bench_faults

Each fault happens for real beside an honest plugin, from the start of the processes to the end of the faulty one. The figure is
the longest time that a task which wants to run every 5 ms had to wait beyond that; the first row is the honest plugin alone, so it
says what the machine itself takes. No test asserts these times.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog

from runtime import supervision
from runtime.roles import Actuator
from tests.isolation.houses import House, opened
from tests.isolation.test_faults import ENDING, FORBIDDEN, UNUSABLE, Fault, faulty
from tests.isolation.test_roles import EVERYTHING, ON, command

TICK = 0.005  # seconds
LONGEST = 20.0  # seconds a fault is watched that ends in nothing
FLOODED = 300  # messages of a flood

GOES_ON = {  # faults that end nothing: what is waited for
    "flood": FLOODED,
    "print megabytes": 1,
    "look for secrets": 1,
    "kill the daemon": 1,
    "hang in stop": 1,
}


class Sampler:
    """Wants to run every TICK, and notes how late it was at worst."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self.worst = max(self.worst, time.perf_counter() - due)


async def measured(name: str, entry: dict[str, Any] | None, wait: Any) -> tuple[str, float, bool]:
    """One fault beside an honest plugin: its name, the longest stall in ms, and whether the neighbour still works."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        sampler = Sampler()
        sampling = asyncio.create_task(sampler.run())
        entries = [EVERYTHING] if entry is None else [EVERYTHING, entry]
        async with opened(Path(folder) / "data", *entries) as found:
            await wait(found)
            works = await neighbour(found)
        sampling.cancel()
    return name, sampler.worst * 1000, works


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


def said(count: int) -> Any:
    async def wait(found: House) -> None:
        async with asyncio.timeout(LONGEST):
            await found.hears(count, "faulty")

    return wait


async def main() -> None:
    supervision.FIRST_BACKOFF, supervision.INTENSITY = 0.0, 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    rows = [await measured("(none)", None, nothing)]
    kinds: list[Fault] = [fault for fault in ENDING if fault.needs[0]]
    for fault in kinds:
        name = " ".join([fault.how, *(f"{key}={value}" for key, value in fault.permissions.items())])
        rows.append(await measured(name, faulty(fault.how, **fault.permissions), ended))
    for how, count in GOES_ON.items():
        rows.append(await measured(how, faulty(how, rate=500.0, patience=20.0), said(count)))
    for how, target, _ in FORBIDDEN[:1] + FORBIDDEN[4:5]:
        rows.append(await measured(f"{how} {target}", faulty(how, target.format(data="/nowhere")), said(1)))
    for entry, reason in UNUSABLE:
        rows.append(await measured(f"cannot be used: {reason[:40]}", {**entry, "name": "faulty"}, ended))
    for name, stall, works in rows:
        print(f"{name:<60} {stall:8.1f} ms  {'the others work' if works else 'THE OTHERS ARE HIT'}")
    stalls = sorted(stall for _, stall, _ in rows[1:])
    print(f"{len(stalls)} faults, {sum(works for *_, works in rows[1:])} contained; longest stall {stalls[-1]:.1f} ms, "
          f"median {stalls[len(stalls) // 2]:.1f} ms; without a fault {rows[0][1]:.1f} ms")  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
