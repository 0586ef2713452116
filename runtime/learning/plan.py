"""What a cycle trains: everything from the base model, or, if that would take too long, the new on top of what serves."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from runtime.config import LearnerConfig
from runtime.learning import curation
from runtime.messages import Cycle, Example

MORE = 3  # times `epochs` that few examples are gone over: 77 classes of ten gained 3 points, 80.0 against 77.0 %
GENTLE = 0.05  # share of the learning rate for going on: with all of it 20 new of 1,000 cost 10 points on the others


@dataclass(frozen=True)
class Plan:
    """`partial`: it goes on from the champion; such a release is provisional until a whole cycle supersedes it."""

    train: tuple[Example, ...]
    settings: LearnerConfig
    partial: bool = False


def make(
    train: Sequence[Example], settings: LearnerConfig, *, speed: float, champion: str, trained: Collection[str]
) -> Plan:
    """`speed`: example passes a second of the last cycle, 0 = unknown; `champion`: the serving adapter's directory, "" =
    the base model; `trained`: ids of the examples it was trained on."""
    whole = Plan(tuple(train), settings)
    new = [example for example in train if not curation.known(example, trained)]
    passes = settings.budget * speed
    needed = max(len(train) * epochs(len(train), settings), settings.min_steps * settings.batch * settings.accumulate)
    if not passes or needed <= passes or not champion or not new:
        return whole
    old = [example for example in train if curation.known(example, trained)]
    room = max(len(new), int(passes / settings.epochs) - len(new))  # at least half of it is old: anchors
    sample = random.Random(f"{settings.seed}|{len(train)}").sample(old, min(room, len(old)))
    chosen = {example.id for example in (*new, *sample)}
    steps = min(settings.min_steps, int(passes / (settings.batch * settings.accumulate)))
    return Plan(
        tuple(example for example in train if example.id in chosen),
        settings.model_copy(update={"start": champion, "min_steps": steps, "seen": 0, "lr": settings.lr * GENTLE}),
        partial=True,
    )


def epochs(count: int, settings: LearnerConfig) -> int:
    """Passes over so many examples: `epochs`, and over few up to three times as many, until `seen` were seen."""
    wanted = math.ceil(settings.seen / max(count, 1))
    return max(settings.epochs, min(wanted, MORE * settings.epochs))


def speed(cycles: Sequence[Cycle]) -> float:
    """Example passes a second of the newest cycle that says."""
    return next((float(rate) for cycle in cycles if (rate := cycle.report.get("examples_per_second"))), 0.0)
