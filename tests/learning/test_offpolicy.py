"""What chance tried tells about versions that never served: unbiased values, and bounds that hold whenever one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.learning.offpolicy import ALPHA, Told, estimate, lower_bound, value

ACTIONS = ("a", "b", "c")
CHANCES = {"a": 0.7, "b": 0.2, "c": 0.1}
WORTH = {"a": 0.6, "b": 0.9, "c": 0.2}

rewards = st.floats(0, 1)
told = st.builds(
    Told,
    action=st.sampled_from(ACTIONS),
    chance=st.floats(0.01, 1),
    reward=rewards,
    right=st.sampled_from(("", *ACTIONS)),
)
logs = st.lists(st.tuples(told, st.sampled_from(ACTIONS), st.sampled_from(ACTIONS)), min_size=1, max_size=30)


def split(rows: list[tuple[Told, str, str]]) -> tuple[list[Told], list[str], list[str]]:
    log, candidate, champion = zip(*rows, strict=True)
    return list(log), list(candidate), list(champion)


def drawn(draw: np.random.Generator, count: int) -> list[Told]:
    """A toy house: actions by their chances, a thumb up or down by what each is worth."""
    actions = draw.choice(ACTIONS, size=count, p=[CHANCES[a] for a in ACTIONS])
    return [Told(action=a, chance=CHANCES[a], reward=float(draw.random() < WORTH[a])) for a in map(str, actions)]


@pytest.mark.parametrize("action", ACTIONS)
def test_all_three_find_what_an_action_is_worth(action: str) -> None:
    log = drawn(np.random.default_rng(0), 20_000)
    found = value(log, [action] * len(log))
    for estimated in (found.ips, found.snips, found.dr):
        assert estimated == pytest.approx(WORTH[action], abs=0.03)


def test_ips_is_exactly_unbiased() -> None:
    """Summed over everything that can happen, weighted by its chance."""
    for action in ACTIONS:
        expected = math.fsum(
            CHANCES[a] * value([Told(action=a, chance=CHANCES[a], reward=WORTH[a])], [action]).ips for a in ACTIONS
        )
        assert expected == pytest.approx(WORTH[action])


@given(logs)
def test_snips_stays_within_the_rewards(rows: list[tuple[Told, str, str]]) -> None:
    log, candidate, _ = split(rows)
    found = value(log, candidate)
    assert 0.0 <= found.snips <= 1.0
    assert 0.0 <= found.ess <= len(log) + 1e-9


@given(logs)
def test_dr_is_the_plain_mean_where_people_said_what_is_right(rows: list[tuple[Told, str, str]]) -> None:
    log, candidate, _ = split(rows)
    known = [replace(one, right=one.right or "b") for one in log]
    direct = sum(said == one.right for one, said in zip(known, candidate, strict=True)) / len(known)
    assert value(known, candidate).dr == pytest.approx(direct)


@given(logs)
def test_who_is_called_the_candidate_only_turns_the_signs(rows: list[tuple[Told, str, str]]) -> None:
    log, candidate, champion = split(rows)
    found, turned = estimate(log, candidate, champion), estimate(log, champion, candidate)
    assert (found.lower, found.upper) == (-turned.upper, -turned.lower)
    assert found.lower <= found.upper


@given(logs, st.permutations(ACTIONS))
def test_the_names_of_actions_mean_nothing(rows: list[tuple[Told, str, str]], names: list[str]) -> None:
    other = {"": "", **dict(zip(ACTIONS, names, strict=True))}
    log, candidate, champion = split(rows)
    renamed = [Told(action=other[t.action], chance=t.chance, reward=t.reward, right=other[t.right]) for t in log]
    again = estimate(renamed, [other[a] for a in candidate], [other[a] for a in champion])
    assert again == estimate(log, candidate, champion)


@given(logs)
def test_a_version_is_never_worse_than_itself(rows: list[tuple[Told, str, str]]) -> None:
    log, candidate, _ = split(rows)
    found = estimate(log, candidate, candidate)
    assert found.candidate == found.champion
    assert found.lower <= 0.0 <= found.upper


@pytest.mark.parametrize("chance", [0.5, 0.05, 0.02])
def test_the_bound_of_a_mean_is_hardly_ever_wrong_at_any_time(chance: float) -> None:
    """Rare large values, as inverse chances are: the running bound may pass the true mean in 5 of 100 histories."""
    draw = np.random.default_rng(1)
    wrong = sum(
        lower_bound(list(np.where(draw.random(300) < chance, 1.0 / chance, 0.0)), 0.0, 1.0 / chance) > 1.0
        for _ in range(300)
    )
    assert wrong <= 300 * ALPHA


def test_a_bound_never_falls_while_values_come() -> None:
    values = list(np.random.default_rng(2).random(60))
    bounds = [lower_bound(values[:n], 0.0, 1.0) for n in range(1, 60)]
    assert bounds == sorted(bounds)
    assert 0.2 < bounds[-1] < 0.5


def house(draw: np.random.Generator, count: int, rate: float, worse: float) -> tuple[list[Told], list[str], list[str]]:
    """Four actions, one right in each situation; the champion decides, something else is tried at `rate`; thumbs are
    given. The candidate errs in `worse` of the situations in which the champion does not, and in none less."""
    log, candidate, champion = [], [], []
    for _ in range(count):
        knows = draw.random() < 0.75
        champion.append("a" if knows else "b")
        candidate.append("c" if knows and draw.random() < worse else champion[-1])
        action = str(draw.choice(("a", "b", "c", "d"))) if draw.random() < rate else champion[-1]
        chance = rate / 4 + (1 - rate if action == champion[-1] else 0.0)
        log.append(Told(action=action, chance=chance, reward=float(action == "a")))
    return log, candidate, champion


def test_equals_are_hardly_ever_vetoed_and_much_worse_ones_are() -> None:
    """Also where the true weight (1 / 0.025) is far above the largest that counts."""
    draw = np.random.default_rng(3)
    for rate in (0.1, 0.4):
        vetoed = sum(estimate(*_swapped(house(draw, 300, rate, 0.2), draw)).upper < 0 for _ in range(100))
        assert vetoed <= 100 * ALPHA
    found = estimate(*house(draw, 500, 0.4, 0.5))
    assert found.upper < 0
    assert found.champion.snips > found.candidate.snips


def _swapped(
    rows: tuple[list[Told], list[str], list[str]], draw: np.random.Generator
) -> tuple[list[Told], list[str], list[str]]:
    """Equals: which of the two errs is tossed for every situation."""
    log, candidate, champion = rows
    turn = draw.random(len(log)) < 0.5
    pairs = [(b, a) if t else (a, b) for a, b, t in zip(candidate, champion, turn, strict=True)]
    return log, [a for a, _ in pairs], [b for _, b in pairs]
