"""The search finds what is best, gives the most training to the best, and proposes only what the learner can train."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.config import LearnerConfig
from runtime.errors import Unavailable
from runtime.learning.candidate import which_layers
from runtime.learning.tuning import KEYS, RANKS, SIZE, pool, search

LEARNER = LearnerConfig().model_dump(mode="json")
SEEDS, COUNTS = st.integers(0, 10_000), st.integers(1, 40)


# --- successive halving -------------------------------------------------------------------------------------------


@given(
    losses=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30, unique=True), eta=st.integers(2, 4),
    rungs=st.lists(st.integers(1, 50), min_size=1, max_size=4),
)  # fmt: skip
def test_it_finds_the_best_where_more_training_changes_no_order(
    losses: list[float], eta: int, rungs: list[int]
) -> None:
    best, history = search(losses, lambda loss, budget: loss, eta=eta, rungs=rungs)
    assert best == min(losses)
    assert len(history) >= len(losses)


def test_nine_then_three() -> None:
    best, history = search(range(9), lambda config, budget: (config - 4) ** 2 / budget)
    assert best == 4
    assert [(trial.config, trial.budget) for trial in history] == [*((n, 1) for n in range(9)), (4, 3), (3, 3), (5, 3)]


def test_what_wins_late_wins_if_it_gets_that_far() -> None:
    slow = {"a": [1.0, 0.9], "b": [1.2, 0.1], "c": [1.1, 0.5], "d": [9.0, 0.0]}
    best, _ = search(list(slow), lambda config, budget: slow[config][int(budget) - 1], eta=2, rungs=(1, 2))
    assert best == "c"  # b and d were cut


def test_among_equals_the_earlier_stays() -> None:
    assert search(["incumbent", "other", "third"], lambda config, budget: 0.5)[0] == "incumbent"


@pytest.mark.parametrize("bad", ["error", math.nan, math.inf])
def test_a_setting_that_fails_drops_out(bad: Any) -> None:
    def evaluate(config: int, budget: float) -> float:
        if config == 0 and bad == "error":
            raise Unavailable("out of memory")
        return bad if config == 0 else float(config)

    best, history = search([0, 1, 2], evaluate)
    assert best == 1
    assert [trial.config for trial in history] == [0, 1, 2]
    assert (history[0].loss, bool(history[0].reason)) == (math.inf, True)
    assert not any(trial.reason for trial in history[1:])


def test_failures_alone_are_told_in_one_sentence() -> None:
    def evaluate(config: int, budget: float) -> float:
        raise Unavailable("out of memory")

    with pytest.raises(
        Unavailable, match=r"no setting that can be trained: out of memory; set \[learner\] tune = false"
    ):
        search([1, 2], evaluate)
    with pytest.raises(Unavailable, match="there is none"):
        search([], evaluate)


def test_a_mistake_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        search([0], lambda config, budget: 1 / config)


# --- what is proposed ---------------------------------------------------------------------------------------------

winners = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "lr": st.floats(1e-5, 1e-1), "rank": st.sampled_from(RANKS), "layers": st.sampled_from(["top:4", "all"])
        },
    ),
    max_size=5,
)  # fmt: skip


def effect(setting: dict[str, Any], learner: dict[str, Any], count: int) -> tuple[Any, ...]:
    whole = {**learner, **setting}
    return whole["lr"], whole["rank"], whole["alpha"], tuple(which_layers(whole["layers"], count))


@pytest.mark.parametrize("adapter", ["lora", "full_delta", "head_only"])
@given(earlier=winners, seed=SEEDS, count=COUNTS)
def test_nine_different_settings_that_can_be_trained(
    adapter: str, earlier: list[dict[str, Any]], seed: int, count: int
) -> None:
    learner = {**LEARNER, "adapter": adapter}
    found = pool(learner, earlier, seed, count)
    assert len(found) == SIZE
    assert found[0] == {}
    assert len({effect(setting, learner, count) for setting in found}) == SIZE
    for setting in found:
        assert setting.keys() <= set(KEYS)
        assert all(value != learner[key] for key, value in setting.items())
        LearnerConfig(**{**learner, **setting})
    assert pool(learner, earlier, seed, count) == found


@given(seed=SEEDS)
def test_it_looks_around_the_incumbent(seed: int) -> None:
    found = pool(LEARNER, [], seed, 30)
    assert {"lr": 0.0016} in found
    assert {"lr": 0.0025} in found
    for setting in found:
        assert 0.3 <= setting.get("lr", LEARNER["lr"]) / LEARNER["lr"] <= 3.2
        assert setting.get("alpha", LEARNER["alpha"]) == 2 * setting.get("rank", LEARNER["rank"])
        assert setting.get("layers", "all") in ("top:4", "top:8", "all")  # it has top:15


def test_the_newest_winners_come_again() -> None:
    earlier = [{"lr": 0.001 * n, "epochs": 9} for n in range(3, 8)]
    found = pool(LEARNER, earlier, 0, 30)
    assert found[1:4] == [{"lr": 0.007}, {"lr": 0.006}, {"lr": 0.005}]


def test_what_the_adapter_has_not_is_not_varied() -> None:
    for adapter, keys in (("full_delta", {"lr", "layers"}), ("head_only", {"lr"})):
        found = pool({**LEARNER, "adapter": adapter}, [], 0, 30)
        assert set().union(*found) == keys
