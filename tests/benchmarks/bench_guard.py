"""The guard against an adversary in the model's place: what got out of the envelope, and what a judgement costs.

python -m tests.benchmarks.bench_guard [--decisions 100000] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from runtime.guard import Guard
from tests import evil

spent: list[float] = []  # seconds of each call of the guard


def timed(call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*arguments: Any) -> Any:
        begun = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            spent.append(time.perf_counter() - begun)

    return wrapper


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    for name in ("judge", "admit"):
        setattr(Guard, name, timed(getattr(Guard, name)))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        effects = asyncio.run(evil.run(Path(folder), decisions=chosen.decisions, seed=chosen.seed))
    seconds, out = time.perf_counter() - begun, evil.outside(effects)
    spent.sort()
    print(f"{chosen.decisions} decisions of an evil model in {seconds:.0f} s: {len(out)} outside the envelope")
    print(f"{len(effects)} inside were carried out: {dict(Counter(effect.actuator for effect in effects))}")
    print(
        f"a judgement: p50 {spent[len(spent) // 2] * 1e6:.0f} µs, p99 {spent[int(len(spent) * 0.99)] * 1e6:.0f} µs ({len(spent)})"
    )
    for line in out[:10]:
        print(line)
    raise SystemExit(bool(out))


if __name__ == "__main__":
    main()
