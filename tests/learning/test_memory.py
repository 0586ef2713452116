"""The memory is a ridge regression, whatever comes when: checked against solving it at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.learning.memory import RIDGE, Floats, Lesson, Memory
from runtime.messages import Action

SIZE = 6
ON, OFF, DIM = (Action(tool="lamp", arguments={"level": level}) for level in ("on", "off", "dim"))


def feature(seed: int) -> Floats:
    vector = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    return vector / np.linalg.norm(vector)


def lesson(number: int, *, scope: str = "hall", weight: float = 1.0) -> tuple[Lesson, Floats]:
    action = (ON, OFF, DIM)[number % 3]
    return Lesson(f"fb{number}", scope, f"situation {number}", action, weight), feature(number)


def solved(lessons: list[tuple[Lesson, Floats]], at: Floats, action: Action, scope: str = "hall") -> float:
    """What ridge regression over all these lessons says, from its definition."""
    x = np.array([f for _, f in lessons], np.float64)
    w = np.array([one.weight for one, _ in lessons])
    y = np.array([float(one.action == action and one.scope == scope) for one, _ in lessons])
    return float(at @ np.linalg.solve((x * w[:, None]).T @ x + RIDGE * np.eye(SIZE), x.T @ (w * y)))


def said(memory: Memory, at: Floats, action: Action) -> float:
    recalled = memory.recall("hall", at)
    assert recalled is not None
    return float(recalled.ridge[recalled.actions.index(action)])


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=8))
def test_neither_order_nor_detours_change_what_it_says(order: list[int], gone: set[int]) -> None:
    memory = Memory()
    for number in order:
        memory.remember(*lesson(number, weight=0.5 + number % 3))
    memory.forget([f"fb{number}" for number in gone])
    left = [lesson(number, weight=0.5 + number % 3) for number in range(12) if number not in gone]
    at = feature(99)
    assert len(memory) == len(left)
    for action in (ON, OFF, DIM):
        assert said(memory, at, action) == pytest.approx(solved(left, at, action), rel=1e-3, abs=1e-3)
    whole = Memory()
    whole.restore(left)
    assert said(whole, at, left[0][0].action) == pytest.approx(said(memory, at, left[0][0].action), rel=1e-3, abs=1e-3)


def test_the_newest_word_on_a_situation_stands() -> None:
    memory = Memory()
    memory.remember(Lesson("a", "hall", "dark", ON), feature(1))
    memory.remember(Lesson("b", "hall", "dark", OFF), feature(1))
    assert len(memory) == 1
    assert said(memory, feature(1), OFF) > 0.8
    assert said(memory, feature(1), ON) == pytest.approx(0.0, abs=1e-4)


def test_without_a_lesson_it_says_what_it_would_have_said() -> None:
    lessons = [lesson(number) for number in range(10)]
    memory, other = Memory(), Memory()
    memory.restore(lessons)
    other.restore(lessons[:4] + lessons[5:])
    mine, theirs = memory.without("fb4"), other.recall("hall", lessons[4][1])
    assert mine is not None
    assert theirs is not None
    places = [theirs.actions.index(action) for action in mine.actions]
    np.testing.assert_allclose(mine.ridge, theirs.ridge[places], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(mine.near, theirs.near[places], rtol=1e-3)
    assert mine.novelty == pytest.approx(theirs.novelty, rel=1e-3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.permutations(range(14)), st.sets(st.integers(0, 13), max_size=9), st.sampled_from([0.3, 1.0]))
def test_all_lessons_of_a_scope_are_left_out_at_once_as_one_by_one(
    order: list[int], gone: set[int], part: float
) -> None:
    memory = Memory(part, learnt=["fb3", "fb4"])
    memory.remember(*lesson(20, scope="attic"))
    for number in order:
        memory.remember(*lesson(number, weight=0.02 + number % 3))
    memory.forget([f"fb{number}" for number in gone])
    left = memory.left_out("hall")
    assert left is not None
    assert {one.id for one in left.lessons} == {f"fb{number}" for number in range(14) if number not in gone}
    ridge, company = left.ridge(), left.company()
    for row, one in enumerate(left.lessons):
        alone = memory.without(one.id)
        assert alone is not None
        assert left.actions == alone.actions
        assert left.actions[left.own[row]] == one.action
        assert company[row] == alone.taught[left.own[row]]
        np.testing.assert_allclose(ridge[row], alone.ridge, atol=1e-4)
    assert memory.left_out("attic") is None, "nothing is left there to answer"


def test_causes_add_up_to_what_it_says() -> None:
    memory = Memory()
    memory.restore([lesson(number) for number in range(9)])
    at = feature(50)
    assert sum(part for _, part in memory.causes("hall", at, OFF)) == pytest.approx(said(memory, at, OFF), abs=1e-4)


def test_scopes_do_not_answer_for_each_other() -> None:
    memory = Memory()
    memory.remember(*lesson(0, scope="hall"))
    assert memory.recall("kitchen", feature(0)) is None


def test_what_was_never_seen_is_novel() -> None:
    memory = Memory()
    memory.restore([lesson(number) for number in range(3)])
    known, strange = memory.recall("hall", feature(0)), memory.recall("hall", -feature(77))
    assert known is not None
    assert strange is not None
    assert known.novelty < 0.3 < strange.novelty <= 1.0


def test_reweighed_lessons_count_as_they_are_told() -> None:
    lessons = [lesson(number) for number in range(6)]
    memory = Memory()
    memory.restore(lessons)
    memory = memory.reweighed({"fb0": 0.25})
    changed = [(Lesson(o.id, o.scope, o.text, o.action, 0.25 if o.id == "fb0" else 1.0), f) for o, f in lessons]
    assert said(memory, feature(5), ON) == pytest.approx(solved(changed, feature(5), ON), abs=1e-4)


def test_it_grows() -> None:
    memory = Memory()
    for number in range(600):
        memory.remember(Lesson(f"f{number}", "hall", f"s{number}", Action(tool=f"t{number % 40}")), feature(number))
    recalled = memory.recall("hall", feature(3))
    assert recalled is not None
    assert len(recalled.actions) == 40
    assert len(memory) == 600


@pytest.mark.parametrize("number", range(6))
def test_what_it_would_say_had_nobody_taught_an_answer_is_what_it_says_when_nobody_did(number: int) -> None:
    every = [lesson(n, weight=0.5 + n % 2) for n in range(18)] + [lesson(30, scope="attic")]
    memory, ignorant = Memory(), Memory()
    memory.restore(every)
    hidden = every[number][0]
    ignorant.restore([one for one in every if one[0].scope == "attic" or one[0].action != hidden.action])
    found, wanted = memory.unheard(hidden.id), ignorant.recall("hall", feature(number))
    assert found is not None
    assert wanted is not None
    assert hidden.action not in found.actions
    for i, action in enumerate(found.actions):
        j = wanted.actions.index(action)
        assert (found.ridge[i], found.near[i]) == pytest.approx((wanted.ridge[j], wanted.near[j]), rel=1e-3, abs=1e-3)
    assert found.novelty == pytest.approx(wanted.novelty, rel=1e-3)
    assert found.lessons == wanted.lessons


def test_lessons_that_are_replaced_take_no_more_room() -> None:
    memory = Memory()
    for number in range(2000):
        memory.remember(replace(lesson(number)[0], text=f"situation {number % 50}"), feature(number % 50))
    assert len(memory) == 50
    assert memory.room < 200
    memory.forget([f"fb{number}" for number in range(1950, 1990)])
    left = [
        (replace(lesson(number)[0], text=f"situation {number % 50}"), feature(number % 50))
        for number in range(1990, 2000)
    ]
    assert {one.id for one in memory.lessons()} == {one.id for one, _ in left}
    for action in (ON, OFF, DIM):
        assert said(memory, feature(99), action) == pytest.approx(solved(left, feature(99), action), abs=1e-3)
    recalled = memory.recall("hall", feature(1990 % 50))
    assert recalled is not None
    assert recalled.lessons == recalled.taught.sum() == 10
    assert recalled.near.max() == pytest.approx(1.0, abs=1e-5)


def test_where_there_is_one_answer_only_nothing_is_left_without_it() -> None:
    memory = Memory()
    memory.remember(*lesson(0))
    assert memory.unheard("fb0") is None


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11), max_size=6), st.sampled_from([0.3, 0.7, 1.0]))
def test_what_the_weights_have_learnt_counts_less_and_nothing_else_changes(
    learnt: set[int], gone: set[int], part: float
) -> None:
    memory = Memory(part)
    memory.restore(lesson(number, weight=0.5 + number % 3) for number in range(12))
    beside = memory.consolidated({f"fb{number}" for number in learnt})
    beside.forget([f"fb{number}" for number in gone])
    beside.remember(*lesson(12))
    counted = [(n, (0.5 + n % 3) * (part if n in learnt else 1.0)) for n in range(12) if n not in gone]
    left = [lesson(n, weight=weight) for n, weight in [*counted, (12, 1.0)]]
    at = feature(99)
    for action in (ON, OFF, DIM):
        assert said(beside, at, action) == pytest.approx(solved(left, at, action), rel=1e-3, abs=1e-3)
    whole = {one.id: one.weight for one in memory.lessons()}
    assert {one.id: one.weight for one in beside.lessons() if one.id != "fb12"}.items() <= whole.items()
    without = beside.without("fb12")
    assert without is not None
    own = without.actions.index(ON)
    rest = [(one, f) for one, f in left if one.id != "fb12"]
    assert float(without.ridge[own]) == pytest.approx(solved(rest, feature(12), ON), rel=1e-3, abs=1e-3)


def test_it_knows_what_the_weights_beside_it_were_never_taught() -> None:
    memory = Memory()
    memory.restore([lesson(0), lesson(1)])  # ON, OFF
    memory.beside({"first": ["fb0", "fb1"], "second": ["fb0"]})
    memory.remember(*lesson(2))  # DIM

    def untaught(version: str, of: Memory = memory) -> set[str]:
        recalled = of.recall("hall", feature(9), version)
        assert recalled is not None
        return {str(action.arguments["level"]) for action in recalled.untaught}

    assert (untaught("first"), untaught("second")) == ({"dim"}, {"dim", "off"})
    assert untaught("base") == set(), "the base model was taught nothing: it is asked as it is"
    assert untaught("first", memory.reweighed({})) == {"dim"}
    assert untaught("first", memory.reweighed({"fb2": 0.02})) == set(), "what is doubted takes no vote away"
    memory.beside({"third": ["fb0", "fb1", "fb2"]})
    assert (untaught("third"), untaught("first")) == (set(), set())


def test_a_version_that_takes_over_while_the_memory_is_made_anew_is_not_forgotten() -> None:
    memory = Memory()
    memory.restore([lesson(0), lesson(1)])
    made_meanwhile = memory.reweighed({})
    memory.beside({"new": ["fb0"]})
    memory.adopt(made_meanwhile)
    recalled = memory.recall("hall", feature(9), "new")
    assert recalled is not None
    assert recalled.untaught == (OFF,)


def test_what_it_would_be_with_some_lessons_alone() -> None:
    memory = Memory()
    for number in range(12):
        memory.remember(*lesson(number))
    kept = [lesson(number) for number in (0, 2, 5)]
    some = memory.only({one.id for one, _ in kept})
    assert {one.id for one in some.lessons()} == {"fb0", "fb2", "fb5"}
    assert said(some, feature(99), ON) == pytest.approx(solved(kept, feature(99), ON), abs=1e-4)
    recalled = some.recall("hall", feature(99))
    assert recalled is not None
    assert OFF not in recalled.actions, "nobody taught it there"
    assert len(memory) == 12
    assert len(memory.only(set())) == 0
