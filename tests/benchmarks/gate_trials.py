"""How often is a worse candidate released, and a better one? The real gate and the real probation, over simulated versions.

A champion is right in 75 % of the situations; a candidate in 5 points less or more: they differ on 19 % of them. A cycle
judges a candidate on 100 held-out items and 100 reference situations; if it is provisional, it is first only asked in silence
(`[gate] shadow`), then people go on living with both. They speak of everything, or only correct, and not always, what was wrong
and shown to them. Apart from that: how often 300 rated decisions, some of them tried by chance, veto it; and how often a version
that serves in full is taken back, by people who only correct, some minutes later (`runtime.probation`, its two questions).

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
from runtime.learning.monitor import TAKEN, Trial
from runtime.learning.monitor import worse as worse_than
from runtime.learning.offpolicy import Told, estimate
from runtime.learning.reference import Drift
from runtime.messages import portion
from runtime.probation import ASKED, SETTLED

RIGHT, MORE, LESS = 0.75, 0.12, 0.07  # shares: champion right; only one of the two right, the better or the other
HELD, CYCLES, LONGEST = 100, 3, 1000
NEW = 0.05  # share of the examples that the champion had not learnt
RATED, EXPLORE, ACTIONS = 300, 0.2, 4  # rated decisions, chance to try another action, and of how many
BEFORE, DELAY = 300, 60.0  # decisions of the version before; seconds until a correction comes, on average
GROSS = 0.25  # share of the situations that a grossly worse candidate loses and wins none
NATS, SPREAD = 0.15, 0.15  # difference in log-loss of 5 points, and how far 100 items miss it


@dataclass(frozen=True)
class Ended:
    """What became of one candidate: `events` are decisions while it was provisional, `acted` those it had a share in."""

    state: str  # rejected, released (by the gate), confirmed, back, open
    events: int = 0
    acted: int = 0


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
        drift=Drift(situations=100, flips=sum(differs(*pair(better, draw), draw) for _ in range(100)) / 100, divergence=0.0),
        new=NEW,
    )  # fmt: skip


def differs(right: bool, other: bool, draw: random.Random) -> bool:
    """Two that are wrong are so in the same way every other time."""
    return right != other or (not right and draw.random() < 0.5)


def vetoed(win: float, loss: float, draw: random.Random) -> bool:
    """Do the rated decisions veto a candidate that wins and loses so many situations? The champion made them, and tried
    something else now and then."""
    told, candidate, champion = [], [], []
    for _ in range(RATED):
        x, knows = draw.random(), draw.random() < RIGHT
        champion.append("right" if knows else "wrong 1")
        turned = x < (loss / RIGHT if knows else win / (1 - RIGHT))
        candidate.append(("wrong 2" if knows else "right") if turned else champion[-1])
        action = draw.choice(("right", "wrong 1", "wrong 2", "wrong 3")) if draw.random() < EXPLORE else champion[-1]
        chance = EXPLORE / ACTIONS + (1 - EXPLORE if action == champion[-1] else 0.0)
        told.append(Told(action=action, chance=chance, reward=float(action == "right")))
    whole = Report(
        examples=500, holdout=HELD, seconds=1.0, examples_per_second=1.0, epochs=1, early_stopped=False, fingerprint=(),
        candidate=Scores(accuracy=0.8), champion=Scores(accuracy=0.7), wins=10, losses=0,
        off_policy=estimate(told, candidate, champion),
    )  # fmt: skip
    return judge(whole, GateConfig()).state == "rejected"


def candidate(better: bool, people: People, draw: random.Random, config: GateConfig) -> Ended:
    """One cycle and what follows."""
    verdict = judge(report(better, draw), config)
    if verdict.state != "provisional":
        return Ended(verdict.state)
    trial = Trial(release="re", acting=not config.shadow)
    for event in range(1, LONGEST + 1):
        if event == config.shadow + 1:
            trial = Trial(release="re")
        right, other = pair(better, draw)
        shown = right if trial.acting and portion(f"{draw.random()}") < config.share else other
        if draw.random() < (people.accept if shown else people.correct):
            trial = trial.after(right, other)
        if trial.ending:
            state = "confirmed" if trial.ending == "better" else "back"
            return Ended(state, event, max(event - config.shadow, 0))
    return Ended("open", LONGEST, LONGEST)


def run(trials: int, seed: int, people: People, config: GateConfig) -> dict[str, float]:
    draw = random.Random(seed)
    worse = [candidate(False, people, draw, config) for _ in range(trials)]
    back = [ended for ended in worse if ended.state == "back"]
    better = [[candidate(True, people, draw, config) for _ in range(CYCLES)] for _ in range(trials)]
    full = ("released", "confirmed")
    return {
        "worse: released fully, %": 100 * sum(ended.state in full for ended in worse) / trials,
        "worse: let in provisionally, %": 100 * sum(ended.events > 0 for ended in worse) / trials,
        "worse: decisions until taken back, median": statistics.median(e.events for e in back) if back else 0,
        "worse: of these with a share in them, median": statistics.median(e.acted for e in back) if back else 0,
        "worse: taken back without ever having acted, %": 100 * sum(not e.acted for e in back) / max(len(back), 1),
        "better: released fully within 3 cycles, %": 100
        * sum(any(e.state in full for e in row) for row in better)
        / trials,
        "better: released fully at once, %": 100 * sum(row[0].state == "released" for row in better) / trials,
    }


def full(worse: float, gap: float, draw: random.Random) -> int | None:
    """After how many decisions a full version, worse than the one before by so much, is taken back; one decision every `gap`
    seconds. None = not within LONGEST."""
    win, loss = (MORE + LESS - worse) / 2, (MORE + LESS + worse) / 2
    correct = ALL[1].correct
    before = [draw.random() > RIGHT and draw.random() < correct for _ in range(BEFORE)]
    pairs, words = [], []
    for number in range(LONGEST):
        x = draw.random()
        right, other = (True, False) if x < win else (False, True) if x < win + loss else (x < RIGHT + win,) * 2
        pairs.append((right, other))
        if not right and draw.random() < correct:
            words.append((number * gap + draw.expovariate(1 / DELAY), number))
    told: set[int] = set()
    for at, number in sorted(words):
        told.add(number)
        seen = range(min(max(max(told), int((at - SETTLED) / gap)) + 1, LONGEST))
        if worse_than(before, [n in told for n in seen]) < TAKEN:
            continue
        trial = Trial(release="re")
        for n in seen[-ASKED:]:
            trial = trial.after(False, pairs[n][1]) if n in told else trial.after(True, pairs[n] == (True, True))
        if trial.ending == "worse":
            return len(seen)
    return None


def taken_back(trials: int, seed: int) -> dict[str, float]:
    draw, found = random.Random(seed), dict[str, float]()
    for worse in (0.0, 0.05, 0.1, 0.2):
        ended = [end for _ in range(trials) if (end := full(worse, 60.0, draw)) is not None]
        name = f"worse by {worse:.0%}" if worse else "equal"
        found[f"{name}: taken back within {LONGEST} decisions, %"] = 100 * len(ended) / trials
        found[f"{name}: after, median"] = statistics.median(ended) if ended else 0
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--trials", type=int, default=200)
    arguments.add_argument("--shadow", type=int, default=GateConfig().shadow)
    asked = arguments.parse_args()
    config = GateConfig(shadow=asked.shadow)
    for people in ALL:
        print(f"People {people.name}; {asked.trials} trials, seeds 0 to 2, {config.shadow} situations in shadow:")
        show([run(asked.trials, seed, people, config) for seed in range(3)])
    print(
        f"{RATED} rated decisions, {EXPLORE:.0%} of them tried by chance among {ACTIONS} actions; {asked.trials} trials:"
    )
    show([vetoes(asked.trials, seed) for seed in range(3)])
    print(f"Full versions, people {ALL[1].name}; {asked.trials // 4} trials:")
    show([taken_back(asked.trials // 4, seed) for seed in range(3)])


def vetoes(trials: int, seed: int) -> dict[str, float]:
    draw = random.Random(seed)
    kinds = {"better by 5 points": (MORE, LESS), "worse by 5 points": (LESS, MORE), "worse by 25 points": (0.0, GROSS)}
    return {
        f"{name}: vetoed, %": 100 * sum(vetoed(*kind, draw) for _ in range(trials)) / trials
        for name, kind in kinds.items()
    }


def show(found: list[dict[str, float]]) -> None:
    for name in found[0]:
        values = [one[name] for one in found]
        print(f"  {name}: {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
