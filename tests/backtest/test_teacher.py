"""Teachers err, lie and speak as they are told to, and the same ones every time."""

from __future__ import annotations

from collections import Counter

import pytest

from runtime.backtest.teacher import Teacher, way_of
from runtime.errors import BadInput
from runtime.messages import Action

A, B, C = ALL = tuple(Action(tool=name) for name in "abc")
MANY = 2000


def test_an_honest_teacher_corrects_and_accepts() -> None:
    teacher = Teacher(ALL)
    assert teacher.says(A, A).kind == "acceptance"
    said = teacher.says(B, A)
    assert (said.kind, said.action) == ("correction", A)


def test_a_rating_says_no_more_than_good_or_bad() -> None:
    teacher = Teacher(ALL, way="rate")
    assert [teacher.says(A, A).rating, teacher.says(B, A).rating] == [1.0, -1.0]
    assert teacher.says(B, A).action is None


def test_an_override_is_an_act() -> None:
    assert Teacher(ALL, way="override").says(B, A).kind == "override"


def test_noise_is_the_share_of_mistakes() -> None:
    teacher = Teacher(ALL, noise=0.2, seed=1)
    said = [teacher.says(A, A) for _ in range(MANY)]
    wrong = [one.action for one in said if one.kind == "correction"]
    assert 0.17 < len(wrong) / MANY < 0.23
    assert A not in wrong


def test_two_of_ten_people_lie_always_alike() -> None:
    teacher = Teacher(ALL, hostile=0.1, seed=2)
    said = [teacher.says(A, A) for _ in range(MANY)]
    lies = Counter(one.source for one in said if one.action == B)
    assert set(lies) == {"person-8", "person-9"}
    assert 0.08 < lies.total() / MANY < 0.12
    assert not any(one.action == C for one in said)
    assert not any(one.kind == "acceptance" and one.source in lies for one in said)


def test_any_number_of_people_may_lie() -> None:
    teacher = Teacher(ALL, hostile=0.5, people=3, liars=1, seed=2)
    said = [teacher.says(A, A) for _ in range(MANY)]
    assert {one.source for one in said if one.action == B} == {"person-2"}
    assert {one.source for one in said if one.action != B} == {"person-0", "person-1"}
    assert {Teacher(ALL, people=1).says(A, A).source for _ in range(9)} == {"person-0"}
    with pytest.raises(BadInput, match="one at least must lie"):
        Teacher(ALL, hostile=0.1, people=2, liars=2)


def test_the_same_seed_says_the_same() -> None:
    def words() -> list[object]:
        teacher = Teacher(ALL, noise=0.5, seed=3)
        return [teacher.says(A, B) for _ in range(20)]

    assert words() == words()


def test_an_unknown_way_is_named() -> None:
    with pytest.raises(BadInput, match="correct, rate, override"):
        way_of("shout")
