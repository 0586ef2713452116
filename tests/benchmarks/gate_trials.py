"""How often is a worse candidate released, and a better one? The real gate and the real probation, over simulated versions.

A champion is right in 75 % of the situations; a candidate in 5 points less or more: they differ on 19 % of them. A cycle
judges a candidate on 100 held-out items; if it is provisional, people go on living with both. They speak of everything, or
only correct, and not always, what was wrong and shown to them.

    python -m tests.benchmarks.gate_trials [--trials 200]
"""

from __future__ import annotations

import argparse
import random
import statistics
from dataclasses import dataclass

from runtime.config import GateConfig
from runtime.learning.gate import judge
from runtime.learning.jobs import Report, Scores
from runtime.learning.monitor import Trial
from runtime.messages import portion

RIGHT, MORE, LESS = 0.75, 0.12, 0.07  # shares: champion right; only one of the two right, the better or the other
HELD, CYCLES, LONGEST = 100, 3, 1000
NATS, SPREAD = 0.15, 0.15  # difference in log-loss of 5 points, and how far 100 items miss it


@dataclass(frozen=True)
class Ended:
    """What became of one candidate: `events` are decisions while it was provisional."""

    state: str  # rejected, released (by the gate), confirmed, back, open
    events: int = 0


@dataclass(frozen=True)
class People:
    name: str
    correct: float  # chance that something wrong which was shown is corrected
    accept: float  # chance that something right which was shown is accepted


ALL = (
    People("say of everything whether it was right", 1.0, 1.0),
    People("correct 8 of 10 mistakes, nothing else", 0.8, 0.0),
)


def pair(better: bool, draw: random.Random) -> tuple[bool, bool]:
    """Is the candidate right, is the champion?"""
    win, loss = (MORE, LESS) if better else (LESS, MORE)
    x = draw.random()
    if x < win:
        return True, False
    if x < win + loss:
        return False, True
    both = x < RIGHT + win
    return both, both


def report(better: bool, draw: random.Random) -> Report:
    pairs = [pair(better, draw) for _ in range(HELD)]
    candidate, champion = (sum(side) / HELD for side in zip(*pairs, strict=True))
    surer = draw.gauss(NATS if better else -NATS, SPREAD)
    return Report(
        examples=500, holdout=HELD, seconds=1.0, examples_per_second=1.0, epochs=1, early_stopped=False, fingerprint=(),
        candidate=Scores(accuracy=candidate, log_loss=1.0 - surer, recall=0.95),
        champion=Scores(accuracy=champion, log_loss=1.0, recall=0.95),
        wins=sum(a and not b for a, b in pairs), losses=sum(b and not a for a, b in pairs),
    )  # fmt: skip


def candidate(better: bool, people: People, draw: random.Random, config: GateConfig) -> Ended:
    """One cycle and what follows."""
    verdict = judge(report(better, draw), config)
    if verdict.state != "provisional":
        return Ended(verdict.state)
    trial = Trial(release="re")
    for event in range(1, LONGEST + 1):
        right, other = pair(better, draw)
        shown = right if portion(f"{draw.random()}") < config.share else other
        if draw.random() < (people.accept if shown else people.correct):
            trial = trial.after(right, other)
        if trial.ending:
            return Ended("confirmed" if trial.ending == "better" else "back", event)
    return Ended("open", LONGEST)


def run(trials: int, seed: int, people: People) -> dict[str, float]:
    draw, config = random.Random(seed), GateConfig()
    worse = [candidate(False, people, draw, config) for _ in range(trials)]
    back = [ended.events for ended in worse if ended.state == "back"]
    better = [[candidate(True, people, draw, config) for _ in range(CYCLES)] for _ in range(trials)]
    full = ("released", "confirmed")
    return {
        "worse: released fully, %": 100 * sum(ended.state in full for ended in worse) / trials,
        "worse: let in provisionally, %": 100 * sum(ended.events > 0 for ended in worse) / trials,
        "worse: events until taken back, median": statistics.median(back) if back else 0,
        "better: released fully within 3 cycles, %": 100
        * sum(any(e.state in full for e in row) for row in better)
        / trials,
        "better: released fully at once, %": 100 * sum(row[0].state == "released" for row in better) / trials,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--trials", type=int, default=200)
    asked = arguments.parse_args()
    for people in ALL:
        found = [run(asked.trials, seed, people) for seed in range(3)]
        print(f"People {people.name}; {asked.trials} trials, seeds 0 to 2:")
        for name in found[0]:
            values = [one[name] for one in found]
            print(f"  {name}: {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
