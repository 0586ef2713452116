"""What was learnt, on situations nobody has shown: base model, baselines, table, weights and both, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import cast

from plugins.house import persistence
from plugins.house.model import BY_ACTUATOR, ROOMS, catalogue
from plugins.house.scenes import Case
from runtime.bus import Bus
from runtime.config import PerceptionConfig
from runtime.errors import BadAction
from runtime.journal import Journal
from runtime.learning.naive_bayes import NaiveBayes
from runtime.learning.scores import balanced_accuracy
from runtime.messages import NOTHING, Action, Example
from runtime.perception import Perception
from runtime.policy.client import Policy
from runtime.roles import observe


@dataclass(frozen=True)
class Row:
    """One judge's balanced accuracy on all situations, on those a sensor woke, and on those somebody spoke in."""

    name: str
    all: float
    sensor: float
    speech: float


def texts(cases: Sequence[Case]) -> list[str]:
    """The situations as the runtime's own perception says them."""
    return [_text(case) for case in cases]


def _text(case: Case) -> str:
    # only the pure part of perception is used, so no journal is there to be written
    perception = Perception(
        cast(Journal, None), Bus(), PerceptionConfig(), [], zone=UTC, actuators=BY_ACTUATOR, scopes=ROOMS
    )
    percepts = [
        percept
        for at, (topic, value) in enumerate(case.observations())
        for percept in perception.perceive(observe(topic, value, at=float(at)))
    ]
    return percepts[-1].text


def row(name: str, cases: Sequence[Case], said: Sequence[Action]) -> Row:
    """Setting what is set already counts as what it does: nothing."""
    gold = [case.right_text for case in cases]
    spoken = [
        case.right_text if case.accepts(action) else catalogue(case.room).render(action)
        for case, action in zip(cases, said, strict=True)
    ]

    def part(kind: str) -> float:
        places = [i for i, case in enumerate(cases) if kind in ("", case.kind)]
        return balanced_accuracy([gold[i] for i in places], [spoken[i] for i in places])

    return Row(name, part(""), part("sensor"), part("speech"))


async def by_model(policy: Policy, adapter: str, cases: Sequence[Case], said: Sequence[str]) -> list[Action]:
    """What the weights alone decide."""
    found: dict[int, Action] = {}
    for room in ROOMS:
        places = [i for i, case in enumerate(cases) if case.room == room]
        rows = await policy.score([said[i] for i in places], catalogue(room), adapter)
        found.update((i, answer.chosen) for i, answer in zip(places, rows, strict=True))
    return [found[i] for i in range(len(cases))]


def by_naive_bayes(examples: Sequence[Example], cases: Sequence[Case], said: Sequence[str]) -> list[Action]:
    """The same examples, one word table for each room."""
    tables = {room: NaiveBayes() for room in ROOMS}
    for example in examples:
        try:
            tables[example.scope].learn(example.text, catalogue(example.scope).render(example.action))
        except (BadAction, KeyError):
            continue
    guesses = []
    for case, text in zip(cases, said, strict=True):
        guess = tables[case.room].predict(text)
        guesses.append(catalogue(case.room).parse(guess) if guess else NOTHING)
    return guesses


def by_persistence(cases: Sequence[Case], seen: Sequence[Case]) -> list[Action]:
    return persistence(cases, seen)


def by_table(
    corrections: Sequence[Example], cases: Sequence[Case], said: Sequence[str], otherwise: Sequence[Action]
) -> list[Action]:
    """The exact-match table; where it has no row, `otherwise`."""
    rows = {(example.scope, example.text): example.action for example in corrections}
    return [rows.get((case.room, text), other) for case, text, other in zip(cases, said, otherwise, strict=True)]


def picture(path: Path, curve: Sequence[tuple[int, Row]], bayes: Row, last: Row) -> None:
    """The learning curve as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    for name, colour, style in (("all", "#1f6feb", "-"), ("speech", "#8250df", "--"), ("sensor", "#1a7f37", ":")):
        axes.plot(
            [n for n, _ in curve],
            [getattr(r, name) * 100 for _, r in curve],
            style,
            marker="o",
            color=colour,
            label=f"weights alone, {name}",
        )
    axes.axhline(bayes.all * 100, color="#9a6700", linewidth=1, label="naive Bayes, all")
    axes.axhline(last.all * 100, color="#6e7781", linewidth=1, linestyle="-.", label="keep the last setting, all")
    axes.set_xlabel("feedback the adapter was trained after")
    axes.set_ylabel("balanced accuracy on unseen situations, %")
    axes.set_title("What the weights have learnt (new habits)")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
