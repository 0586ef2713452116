"""The end of the demo: base, baselines, table, weights and both on unseen situations, as a table and as what fell short."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

from plugins.house import stream, unseen, verdict
from plugins.house.verdict import Row
from runtime.config import Config
from runtime.journal import Journal
from runtime.policy.client import Policy

GAIN = 0.20  # balanced accuracy that the weights alone must gain over the base model
THREADS = 2  # nothing else runs any more


@dataclass(frozen=True)
class Judged:
    """One row a judge, and the learning curve: (feedbacks, row of the adapter trained after them)."""

    base: Row
    bayes: Row
    keep: Row
    table: Row
    weights: Row
    both: Row
    curve: tuple[tuple[int, Row], ...]
    examples: int
    sensor: int  # situations that a sensor woke
    spoken: int  # and those in which somebody spoke

    def shortfalls(self) -> list[str]:
        """What the promise of the demo asks for and did not get."""
        reasons = []
        if self.weights.all < self.base.all + GAIN:
            reasons.append(
                f"weights {self.weights.all:.1%} against base {self.base.all:.1%}: less than {GAIN:.0%} more"
            )
        if self.weights.all <= self.keep.all:
            reasons.append(f"weights {self.weights.all:.1%} do not beat keeping the last setting ({self.keep.all:.1%})")
        if self.weights.speech <= self.bayes.speech:
            reasons.append(
                f"on what people say, weights {self.weights.speech:.1%} do not beat naive Bayes ({self.bayes.speech:.1%})"
            )
        return reasons

    def as_table(self) -> Table:
        table = Table(
            title=f"Balanced accuracy on {self.sensor + self.spoken} unseen situations under the new habits, "
            f"after {self.examples} feedbacks"
        )
        for heading in ("", "all", f"sensors ({self.sensor})", f"spoken ({self.spoken})"):
            table.add_column(heading, justify="left" if not heading else "right")
        for row in (self.base, self.bayes, self.keep, self.table, self.weights, self.both):
            table.add_row(row.name, *(f"{value:.1%}" for value in (row.all, row.sensor, row.speech)))
        return table


async def judge(config: Config, seed: int, count: int, number: int) -> Judged:
    """Judge what a stopped daemon has learnt from `count` situations on `number` others of the new habits."""
    seen = stream(seed, count)
    cases = unseen(seed, number, seen)
    said = verdict.texts(cases)
    data, policy_config = config.agent.data, config.policy.model_copy(update={"threads": THREADS})
    async with (
        Journal.open(data / "journal.db") as journal,
        Policy(policy_config, data, config.agent.instruction) as policy,
    ):
        await policy.wait_ready()
        examples, corrections = await journal.examples(config.learner.window), await journal.corrections()
        released = [c for c in reversed(await journal.cycles(100)) if c.state in ("released", "provisional")]
        base = weights = await verdict.by_model(policy, "base", cases, said)
        curve = [(0, verdict.row("base model", cases, base))]
        for cycle in released:
            await policy.load(cycle.adapter, data / "adapters" / cycle.adapter)
            weights = await verdict.by_model(policy, cycle.adapter, cases, said)
            curve.append((cycle.examples, verdict.row(cycle.adapter, cases, weights)))
    return Judged(
        base=curve[0][1],
        bayes=verdict.row("naive Bayes", cases, verdict.by_naive_bayes(examples, cases, said)),
        keep=verdict.row("keep the last setting", cases, verdict.by_persistence(cases, seen)),
        table=verdict.row("table alone", cases, verdict.by_table(corrections, cases, said, base)),
        weights=verdict.row("weights alone", cases, weights),
        both=verdict.row("table and weights", cases, verdict.by_table(corrections, cases, said, weights)),
        curve=tuple(curve),
        examples=len(examples),
        sensor=sum(case.kind == "sensor" for case in cases),
        spoken=sum(case.kind == "speech" for case in cases),
    )
