"""Whom to believe: one contradiction convicts nobody, many do, and somebody can always vouch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.learning.doubt import Findings, View, find, lower


def views(source: str, good: int, bad: int) -> list[View]:
    return [
        View(
            id=f"{source}-{n}", source=source, own=0.0 if n < bad else 0.8, best=0.9 if n < bad else 0.1,
            other="lamp off", company=9,
        )
        for n in range(good + bad)
    ]  # fmt: skip


def test_careful_people_are_believed_even_where_others_taught_something_else() -> None:
    assert not find(views("Ana", 97, 3)).doubted
    assert not find(views("Ana", 3, 1)).doubted


def test_of_a_careless_person_what_is_contradicted_is_doubted() -> None:
    found = find(views("Ana", 100, 2) + views("Bob", 80, 20))
    assert {doubted.feedback_id for doubted in found.doubted} == {f"Bob-{n}" for n in range(20)}
    assert not found.sources
    assert "lamp off was right (90% against 0%)" in found.doubted[0].reason


def test_of_a_liar_everything_is_doubted() -> None:
    found = find(views("Ana", 100, 2) + views("Eve", 10, 20))
    assert {doubted.source for doubted in found.doubted} == {"Eve"}
    assert len(found.doubted) == 30
    assert found.sources == ("Eve",)
    assert "20 of 30 words of Eve" in found.doubted[0].reason


def test_who_is_vouched_for_is_believed() -> None:
    said = views("Ana", 100, 2) + views("Bob", 80, 20) + views("Eve", 10, 20)
    assert {doubted.source for doubted in find(said, ["Eve"]).doubted} == {"Bob"}
    assert "Bob-3" not in {doubted.feedback_id for doubted in find(said, ["Bob-3"]).doubted}


def test_the_only_lesson_of_an_answer_is_never_doubted() -> None:
    new = [View(id=f"n{n}", source="Bob", own=0.0, best=0.9, other="lamp off", company=1) for n in range(30)]
    assert not find(views("Ana", 100, 0) + new).doubted


def test_a_judge_that_errs_more_often_than_not_judges_nobody() -> None:
    assert find(views("Ana", 30, 70)) == Findings()
    assert find([]) == Findings()


@given(st.integers(0, 50), st.integers(1, 50))
def test_the_bound_is_below_what_was_seen(count: int, more: int) -> None:
    of = count + more
    assert lower(count, of) <= count / of + 1e-12
    assert lower(0, of) == pytest.approx(0, abs=1e-12)


def test_an_answer_is_not_judged_by_its_second_lesson_alone() -> None:
    def found(company: int) -> Findings:
        return find(views("Ana", 40, 0) + [replace(view, company=company) for view in views("Bob", 0, 20)])

    assert not found(1).doubted
    assert len(found(2).doubted) == 20


def test_one_word_convicts_nobody() -> None:
    assert not find(views("Ana", 40, 0) + views("Ben", 0, 1)).doubted
    assert not find(views("Ana", 40, 0) + views("Ben", 0, 2)).sources
    assert find(views("Ana", 40, 0) + views("Ben", 0, 3)).sources == ("Ben",)


@pytest.mark.parametrize("lies", [60, 100, 1000])
def test_who_lies_more_does_not_look_better_for_it(lies: int) -> None:
    assert find(views("Ana", 60, 0) + views("Eve", 0, lies)).sources == ("Eve",)
    crowd = views("Ana", 60, 0) + views("Eve", 0, lies) + views("Eva", 0, lies)
    assert find(crowd, distrusted=("Eve", "Eva")).sources == ("Eva", "Eve")
