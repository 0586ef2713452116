"""Swaps under load: the policy worker loads, proves and serves one adapter after another while decisions are made.

`worst_gap_ms` is the longest step of all loading and unloading, as the worker's own clock has it: between two steps it looks
for decisions, so by so much, and no more, a decision can be held up. Beside it stands what the decisions themselves took:
all ask the same question, those that a flip fell into or came just before, and those of a while without any swap after
every hundred. On a shared machine the longest of both are the machine's own pauses.

    python -m tests.benchmarks.own_swap --data FILE --adapter DIR [--swaps 1000] [--rate 8]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.catalogue import Catalogue
from runtime.config import PolicyConfig
from runtime.policy.client import Policy
from tests.benchmarks.peers import data as peer_data

BLOCK, STILL = 100, 60  # swaps after which so many decisions are made without any
WARM = 10  # decisions at the start that do not count


@dataclass
class Load:
    """Decisions at a steady rate with whatever serves."""

    policy: Policy
    catalogue: Catalogue
    text: str
    rate: float
    adapter: str
    took: list[tuple[float, float]] = field(default_factory=list)  # (begun, milliseconds)
    refused: int = 0

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                await self.policy.score_one(self.text, self.catalogue, self.adapter)
            except Exception:
                self.refused += 1
            self.took.append((begun, (time.monotonic() - begun) * 1000))
            await asyncio.sleep(max(0.0, begun + 1 / self.rate - time.monotonic()))


async def run(asked: argparse.Namespace) -> dict[str, Any]:
    contents = peer_data.read(asked.data)
    with tempfile.TemporaryDirectory(prefix="corrigible-bench-") as scratch:
        config = PolicyConfig(catalogue_tokens=contents["catalogue_tokens"])
        async with Policy(config, Path(scratch), contents["instruction"]) as policy:
            await policy.wait_ready()
            await policy.load("v0", asked.adapter)
            load = Load(policy, peer_data.catalogue(contents), contents["held"][0]["input"], asked.rate, "v0")
            deciding = asyncio.create_task(load.run())
            await _decisions(load, WARM)
            flips, still, before = await _swap(policy, load, asked.adapter, asked.swaps)
            deciding.cancel()
            with suppress(asyncio.CancelledError):
                await deciding
            after, mixed, held_ms = _rss_mb(policy.pid), policy.mixed, policy.held_ms
    around = [_around(load.took, flip) for flip in flips]
    return {
        "swaps": len(flips),
        "refused": load.refused,
        "mixed": mixed,
        "rss_growth_mb": round(after - before, 1),
        "worst_gap_ms": round(held_ms, 2),
        "swapping_ms": _summary(around),
        "still_ms": _summary(still),
        "decisions": len(load.took),
    }


def _summary(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        name: round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
        for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0))
    }


async def _swap(policy: Policy, load: Load, adapter: Path, count: int) -> tuple[list[float], list[float], float]:
    """(moments of the flips, milliseconds of decisions without any, memory once the first swaps are over)."""
    flips, still, before = list[float](), list[float](), 0.0
    for number in range(1, count + 1):
        await policy.load(f"v{number}", adapter)
        load.adapter = f"v{number}"
        flips.append(time.monotonic())
        if number > 1:
            await policy.unload(f"v{number - 2}")
        if number == max(1, count // 10):
            before = _rss_mb(policy.pid)
        if number % BLOCK == 0 or number == count:
            await _decisions(load, 2)
            start = len(load.took)
            await _decisions(load, STILL)
            still += [ms for _, ms in load.took[start:]]
    return flips, still, before


async def _decisions(load: Load, count: int) -> None:
    end = len(load.took) + count
    while len(load.took) < end:  # noqa: ASYNC110 - the load has no event for it
        await asyncio.sleep(0.05)


def _around(took: list[tuple[float, float]], flip: float) -> float:
    """The longer of the decision that was under way at the flip and the next one."""
    after = next((i for i, (begun, _) in enumerate(took) if begun >= flip), len(took) - 1)
    return max(ms for _, ms in took[max(0, after - 1) : after + 1])


def _rss_mb(pid: int | None) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="swaps under load")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=8.0)
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


if __name__ == "__main__":
    main()
