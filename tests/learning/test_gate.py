"""The gate and the split it judges on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.config import GateConfig, LearnerConfig
from runtime.learning import curation, duplicates
from runtime.learning.gate import by_chance, judge
from runtime.learning.jobs import Report, Scores
from runtime.messages import Action, Example


def report(candidate: dict[str, float], champion: dict[str, float], **other: Any) -> Report:
    fields: dict[str, Any] = {"holdout": 50, "wins": 5, "losses": 5, **other}
    return Report(
        examples=100, seconds=1.0, examples_per_second=1.0, epochs=1, early_stopped=False, fingerprint=(),
        candidate=Scores(**candidate), champion=Scores(**champion), **fields,
    )  # fmt: skip


BETTER, WORSE = {"accuracy": 0.8, "log_loss": 0.5, "recall": 0.9}, {"accuracy": 0.6, "log_loss": 0.9, "recall": 0.9}


@pytest.mark.parametrize(
    ("made", "state"),
    [
        (report(BETTER, WORSE, wins=5, losses=0), "released"),
        (report(BETTER, WORSE, wins=10, losses=3), "released"),
        (report(BETTER, WORSE, wins=9, losses=3), "provisional"),
        (report(BETTER, WORSE, wins=10, losses=0, broken=("kitchen: 'gas' -> nothing",)), "rejected"),
        (report(WORSE, BETTER, wins=2, losses=12), "rejected"),
        (report({**WORSE, "log_loss": 0.1}, BETTER, wins=8, losses=10), "provisional"),
        (report({**WORSE, "log_loss": 0.1}, BETTER, wins=2, losses=12), "rejected"),
        (report({**BETTER, "log_loss": 0.6}, BETTER), "rejected"),
        (report({**BETTER, "log_loss": float("nan")}, WORSE), "rejected"),
        (report(BETTER, WORSE, holdout=3), "provisional"),
        (report({**BETTER, "recall": 0.2}, {**WORSE, "recall": 0.1}, holdout=3), "rejected"),
        (report({**BETTER, "recall": 0.8}, WORSE, holdout=3), "rejected"),
    ],
)
def test_verdicts(made: Report, state: str) -> None:
    verdict = judge(made, GateConfig())
    assert verdict.state == state
    assert verdict.reason


def test_chance_is_exact() -> None:
    assert by_chance(0, 0) == 1.0
    assert by_chance(0, 5) == pytest.approx(1 / 32)
    assert by_chance(10, 8) > 0.5


texts = st.lists(st.tuples(st.text(min_size=1, max_size=4), st.sampled_from("abc")), max_size=40)


def examples(rows: list[tuple[str, str]]) -> list[Example]:
    return [
        Example(id=f"fb-{n}", scope="room", text=text, action=Action(tool=tool), at=float(n))
        for n, (text, tool) in enumerate(rows)
    ]


def tool(scope: str, action: Action) -> str:
    return action.tool


@given(texts, st.integers(0, 3))
def test_split_is_a_partition_that_keeps_every_answer_in_training(rows: list[tuple[str, str]], seed: int) -> None:
    given_ = duplicates.merged(examples(rows))
    train, held = curation.split(given_, LearnerConfig(holdout=0.5, seed=seed), tool)
    assert sorted(e.id for e in [*train, *held]) == sorted(e.id for e in given_)
    assert {e.action.tool for e in train} == {e.action.tool for e in given_}


@given(texts, st.integers(0, 39))
def test_what_is_held_out_once_never_enters_training_later(rows: list[tuple[str, str]], cut: int) -> None:
    """As long as its answer stays known from another example; and what the champion learnt is never held out."""
    settings = LearnerConfig(holdout=0.5)
    early = duplicates.merged(examples(rows[:cut]))
    lessons, _ = curation.split(early, settings, tool)
    _, held = curation.split(duplicates.merged(examples(rows)), settings, tool, {e.id for e in lessons})
    assert not {e.id for e in held} & {e.id for e in lessons}


def test_newest_answer_stands_and_old_ones_weigh_less() -> None:
    kept = duplicates.merged(examples([("dark", "a"), ("bright", "b"), ("dark", "c")]))
    assert [(e.text, e.action.tool) for e in kept] == [("bright", "b"), ("dark", "c")]
    assert [e.weight for e in curation.recent(kept, half_life=1.0)] == [0.5, 1.0]
