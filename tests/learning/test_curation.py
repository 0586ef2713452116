"""Curation: what is held out is never trained on, stays held out, and never costs an answer its only example."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.config import LearnerConfig
from runtime.learning.curation import recent, split
from runtime.learning.duplicates import merged
from runtime.messages import Action, Example

examples_of_a_house = st.lists(
    st.tuples(st.sampled_from(["hall", "room"]), st.integers(0, 200), st.sampled_from("abc")),
    max_size=80,
    unique_by=lambda row: row[:2],
).map(lambda rows: [example(n, *row) for n, row in enumerate(rows)])


def example(number: int, scope: str = "room", situation: int = 0, answer: str = "a") -> Example:
    return Example(
        id=f"fb-{number}", scope=scope, text=f"situation {situation}", action=Action(tool=answer), at=float(number)
    )


def render(scope: str, action: Action) -> str:
    return action.tool


@settings(max_examples=200, deadline=None)
@given(
    examples=examples_of_a_house,
    holdout=st.floats(0.0, 0.85),
    limit=st.integers(0, 30),
    seed=st.integers(0, 5),
    champions=st.sets(st.integers(0, 79)),
)
def test_the_split_keeps_its_promises(
    examples: list[Example], holdout: float, limit: int, seed: int, champions: set[int]
) -> None:
    config = LearnerConfig(holdout=holdout, holdout_limit=limit, seed=seed)
    trained = {f"fb-{number}" for number in champions}
    train, held = split(examples, config, render, trained)
    assert sorted(train + held, key=lambda e: e.at) == examples, "disjoint, and nothing is lost"
    assert {(e.scope, e.action.tool) for e in held} <= {(e.scope, e.action.tool) for e in train}
    assert len(held) <= limit
    assert not trained & {e.id for e in held}
    assert split(examples, config, render, trained) == (train, held)


@settings(max_examples=100, deadline=None)
@given(examples=examples_of_a_house)
def test_new_examples_move_no_old_one_out_of_the_held_out_set(examples: list[Example]) -> None:
    config = LearnerConfig(holdout=0.3, holdout_limit=1000)
    half = examples[: len(examples) // 2]
    before = {e.id for e in split(half, config, render)[1]}
    train = {e.id for e in split(examples, config, render)[0]}
    assert not before & train


def test_the_only_example_of_an_answer_is_trained_on() -> None:
    examples = [example(n, situation=n, answer=f"answer {n}") for n in range(50)]
    assert split(examples, LearnerConfig(holdout=0.8), render) == (examples, [])


def test_about_the_share_that_was_asked_for_is_held_out() -> None:
    examples = [example(n, situation=n) for n in range(1000)]
    held = split(examples, LearnerConfig(holdout=0.2, holdout_limit=1000), render)[1]
    assert 150 <= len(held) <= 250


@given(examples=st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc")), max_size=30))
def test_the_newest_answer_to_a_situation_stands(examples: list[tuple[int, str]]) -> None:
    given_ = [example(n, "room", situation, answer) for n, (situation, answer) in enumerate(examples)]
    kept = merged(given_[::-1])
    assert all(count == 1 for count in Counter(e.text for e in kept).values())
    assert {e.text: e.action for e in kept} == {e.text: e.action for e in given_}
    assert [e.at for e in kept] == sorted(e.at for e in kept)


def test_an_old_example_counts_half_after_the_half_life() -> None:
    weights = [e.weight for e in recent([example(n) for n in range(5)], half_life=2)]
    assert weights == pytest.approx([0.25, 0.354, 0.5, 0.707, 1.0], abs=1e-3)
    assert [e.weight for e in recent([example(n) for n in range(3)], half_life=0)] == [1.0, 1.0, 1.0]
    assert all(e.weight > 0 for e in recent([example(n) for n in range(500)], half_life=1))
