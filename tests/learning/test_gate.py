"""The gate and the split it judges on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.config import GateConfig, LearnerConfig
from runtime.learning import curation, duplicates, offpolicy
from runtime.learning.gate import by_chance, judge
from runtime.learning.jobs import Report, Scores
from runtime.learning.offpolicy import Estimate, Value
from runtime.learning.reference import Drift
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


SHOWN: dict[str, Any] = {"wins": 10, "losses": 0}  # the held-out items speak for it


def logged(upper: float, ess: float = offpolicy.ENOUGH) -> Estimate:
    return Estimate(
        decisions=120, candidate=Value(dr=0.6, ess=ess), champion=Value(dr=0.8, ess=99), lower=-1, upper=upper
    )


@pytest.mark.parametrize(
    ("other", "state", "says"),
    [
        (
            {"off_policy": logged(-0.03)},
            "rejected",
            "120 decisions by chance that people judged it would have done right",
        ),
        ({"off_policy": logged(0.03)}, "released", "no veto"),
        ({"off_policy": logged(-0.03, ess=9)}, "released", "not enough to veto it"),
        ({"drift": Drift(situations=100, flips=0.34, divergence=1.0), "new": 0.1}, "released", "34% of 100"),
        ({"drift": Drift(situations=100, flips=0.36, divergence=1.0), "new": 0.1}, "provisional", "more than the 35%"),
        ({"drift": Drift(situations=100, flips=0.9, divergence=1.0), "new": 0.9}, "released", "90% of 100"),
        ({"partial": True}, "provisional", "trained on a part"),
        ({"partial": True, "off_policy": logged(-0.03)}, "rejected", "vetoed"),
        ({"broken": ("room: 'gas'",), "off_policy": logged(-0.03)}, "rejected", "must pass"),
    ],
)
def test_what_the_held_out_items_do_not_see(other: dict[str, Any], state: str, says: str) -> None:
    verdict = judge(report(BETTER, WORSE, **SHOWN, **other), GateConfig())
    assert verdict.state == state
    assert says in verdict.reason


def test_a_margin_and_a_limit_can_be_set() -> None:
    assert judge(report(BETTER, WORSE, **SHOWN, off_policy=logged(-0.03)), GateConfig(margin=0.05)).state == "released"
    changed = report(BETTER, WORSE, **SHOWN, drift=Drift(situations=100, flips=1.0, divergence=3.0), new=0.0)
    assert judge(changed, GateConfig(drift=1.0)).state == "released"
    assert judge(changed, GateConfig(drift=0.99)).state == "provisional"


@pytest.mark.parametrize("state", ["rejected", "provisional"])
def test_no_rung_lifts_what_another_one_let_fall(state: str) -> None:
    """Neither the log nor a small change releases what the held-out items do not show."""
    fell = report(WORSE, BETTER, wins=2, losses=12) if state == "rejected" else report(BETTER, WORSE, holdout=3)
    kind = {"off_policy": logged(0.5), "drift": Drift(situations=100, flips=0.0, divergence=0.0)}
    assert judge(replace(fell, **kind), GateConfig()).state == state


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
