"""Do the causes that `corrigible explain` names cause the decision? Leave them out, train again, and see whether it flips.

    python -m tests.benchmarks.causes [--data ../shared/data/banking77/stream.jsonl] [--classes 12] [--lessons 6] [--decisions 50]

The real model is taught by corrections through the daemon's own door, learns in one cycle, and decides on situations that it
never saw. Of those it decides right, `--decisions` are explained; what is named (`runtime.counterfactual.named`: a fixed rule) is
left out, and weights and memory are made again without it. Decisions with the same causes share a training. The control
leaves out as many other lessons, drawn at random.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime import app as application
from runtime import config, logging
from runtime.app import App
from runtime.backtest import Listed, data
from runtime.backtest.data import Codec, Line
from runtime.backtest.session import SCOPE, TOPIC
from runtime.config import LogConfig
from runtime.contrast import contrast
from runtime.counterfactual import Proof
from runtime.messages import Decision, Example, Feedback, derived_id, new_id
from runtime.roles import observe

REAL, OWN = Path("../shared/data/banking77/stream.jsonl"), Path("tests/benchmarks/desk/stream.jsonl")
RECIPE = {
    "layers": "top:8", "epochs": 8, "seen": 0, "min_steps": 0, "refit": 0, "word_drop": 0.0, "holdout": 0.0,
    "after": 0, "every": 0, "warm": False, "nice": 5,
}  # fmt: skip
DRAWS = 5  # sets of other lessons that the control leaves out


@dataclass(frozen=True)
class Case:
    """One unseen situation that was decided right."""

    decision: Decision
    text: str
    causes: frozenset[str]  # ids of the feedback that is named
    own: int  # lessons that taught its action


def rows(path: Path, classes: int, lessons: int) -> tuple[list[Line], list[Line]]:
    """(what is taught, what is asked): the first rows of the first classes."""
    found = data.read(path)
    wanted = set(list(dict.fromkeys(line.output for line in found))[:classes])
    taught, asked, count = list[Line](), list[Line](), Counter[str]()
    for line in found:
        if line.output in wanted:
            (taught if count[line.output] < lessons else asked).append(line)
            count[line.output] += 1
    return taught, asked


async def hear(app: App, text: str) -> Decision:
    message = observe(TOPIC, {"input": text}, at=time.time(), id=new_id("ev"))
    wanted = derived_id("dc", derived_id("pc", SCOPE, "speech", message.id, ""))
    with app.bus.subscribe(Decision) as decisions:
        await app.ingest.emit(message)
        async for decision in decisions:
            if decision.id == wanted:
                return decision
    raise AssertionError("the bus ended")


async def teach(app: App, codec: Codec, line: Line) -> None:
    decision = await hear(app, line.input)
    right = codec.action(line.output)
    await app.ingest.emit(
        Feedback(
            id=new_id("fb"), decision_id=decision.id, kind="correction", source="Ana", at=time.time(), action=right
        )
    )
    await app.remembering.until_known(SCOPE, app.perception.vocabulary.readings(line.input))


async def cases(app: App, codec: Codec, asked: Sequence[Line], count: int) -> tuple[list[Case], int]:
    """The first that are decided right, and how many were asked for them."""
    found: list[Case] = []
    for number, line in enumerate(asked, start=1):
        decision = await hear(app, line.input)
        if decision.actions[0] == codec.action(line.output):
            text = app.perception.vocabulary.readings(line.input)
            taught = await app.counterfactuals.taught(decision)
            named = await app.counterfactuals.causes(decision, text, taught)
            own = sum(example.action == decision.actions[0] for example in taught)
            found.append(Case(decision, text, frozenset(lesson.id for lesson in named), own))
        if len(found) == count:
            return found, number
    return found, len(asked)


async def without(
    app: App, gone: frozenset[str], some: Sequence[Case], taught: Sequence[Example]
) -> list[dict[str, Any]]:
    """What becomes of these decisions if that was never taught: one training for all."""
    proof, first = Proof(""), some[0].decision
    voice = app.explaining.voice(first.adapter)
    async with AsyncExitStack() as stack:
        before, after = await app.counterfactuals.sides(stack, first, voice, taught, gone, proof)
        found = []
        for case in some:
            sides = [await app.counterfactuals.asked(side, SCOPE, case.text, voice.trusted) for side in (before, after)]
            found.append(contrast(sides[0], sides[1], before.catalogue))
    return found


def told(name: str, found: Sequence[dict[str, Any]]) -> None:
    for judge in ("both", "weights", "memory"):
        flips = [one[judge]["flips"] for one in found]
        falls = [one[judge]["p"] - one[judge]["p_without"] for one in found]
        print(f"  {name}, {judge}: {sum(flips)} of {len(flips)} flip ({sum(flips) / len(flips):.0%}); "
              f"its chance falls by {statistics.mean(falls):.2f} on average", flush=True)  # fmt: skip


async def measure(
    app: App, codec: Codec, taught_lines: Sequence[Line], asked: Sequence[Line], count: int, seed: int
) -> None:
    for line in taught_lines:
        await teach(app, codec, line)
    cycle = await app.learner.cycle()
    print(f"{len(taught_lines)} lessons of {len({line.output for line in taught_lines})} classes; cycle {cycle.state} in "
          f"{cycle.report.get('seconds')} s: {cycle.reason}", flush=True)  # fmt: skip
    found, tried = await cases(app, codec, asked, count)
    taught = await app.counterfactuals.taught(found[0].decision)
    groups: dict[frozenset[str], list[Case]] = {}
    for case in found:
        groups.setdefault(case.causes, []).append(case)
    whole = sum(len(case.causes) == case.own for case in found)
    print(f"{len(found)} of {tried} unseen decided right; {statistics.mean(len(c.causes) for c in found):.1f} causes named on "
          f"average of {statistics.mean(c.own for c in found):.1f} lessons with the same answer ({whole} name all of them); "
          f"{len(groups)} trainings", flush=True)  # fmt: skip
    told("as many others left out", await others(app, found, taught, random.Random(seed)))
    named, left = list[dict[str, Any]](), list[dict[str, Any]]()
    for gone, some in groups.items():
        results = await without(app, gone, some, taught)
        named += results
        left += [one for case, one in zip(some, results, strict=True) if len(case.causes) < case.own]
        so_far = {judge: sum(one[judge]["flips"] for one in named) for judge in ("both", "weights", "memory")}
        print(f"    {len(named)}: {so_far}", flush=True)
    told("named causes left out", named)
    if left:
        told("of these, where lessons with the same answer were left", left)


async def others(
    app: App, found: Sequence[Case], taught: Sequence[Example], draw: random.Random
) -> list[dict[str, Any]]:
    """The control: each decision with one of some random sets that holds none of its causes."""
    size = round(statistics.mean(len(case.causes) for case in found))
    ids, open_cases, results = [example.id for example in taught], list(found), list[dict[str, Any]]()
    share = -(-len(found) // DRAWS)
    while open_cases:
        gone = frozenset(draw.sample(ids, size))
        some = [case for case in open_cases if gone.isdisjoint(case.causes)][:share]
        if some:
            results += await without(app, gone, some, taught)
            open_cases = [case for case in open_cases if case not in some]
    return results


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=REAL if REAL.is_file() else OWN)
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--lessons", type=int, default=6)
    parser.add_argument("--decisions", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.setup(LogConfig(level="warning"))
    taught, asked = rows(chosen.data, chosen.classes, chosen.lessons)
    codec = Codec(taught)
    with tempfile.TemporaryDirectory(prefix="corrigible-causes-") as scratch:
        settings = config.load(
            None, agent={"data": Path(scratch), "instruction": "Sort the message."}, broker={"mode": "none"},
            learner={**RECIPE, "seed": chosen.seed}, gate={"min_recall": 0.0}, policy={"ask": "never"},
        )  # fmt: skip
        desk = Listed(codec.catalogue.tools)
        desk.name = "backtest"
        begun = time.monotonic()
        async with application.opened(settings, extra=[desk]) as app:
            await app.policy.wait_ready()
            await app.restore()
            async with asyncio.TaskGroup() as core:
                await app.stages(core)
                await measure(app, codec, taught, asked, chosen.decisions, chosen.seed)
                application.cancel(core)
        print(f"{time.monotonic() - begun:.0f} s in all; data {chosen.data}, seed {chosen.seed}")


if __name__ == "__main__":
    asyncio.run(main())
