"""What each example counts: nothing changes where all is even, nobody and nothing drowns the rest, the total stays."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.config import LearnerConfig
from runtime.learning.balance import LEAST, capped, even, weight_by_source
from runtime.learning.curation import weighed
from runtime.messages import Action, Example

rows = st.lists(st.tuples(st.sampled_from("aaaaaabcd"), st.sampled_from(["Ana", "Ana", "Ana", "Ben", "Eve", "Zoe"])))
examples_of_people = rows.map(lambda given: [example(n, *row) for n, row in enumerate(given)])


def example(number: int, answer: str = "a", source: str = "Ana") -> Example:
    return Example(
        id=f"fb-{number}", scope="room", text=f"situation {number}", action=Action(tool=answer), source=source,
        at=float(number),
    )  # fmt: skip


def of(counts: dict[tuple[str, str], int]) -> list[Example]:
    return [example(n, *key) for n, key in enumerate(key for key, count in counts.items() for _ in range(count))]


def total(examples: list[Example]) -> float:
    return sum(e.weight for e in examples)


@given(examples_of_people, st.floats(0.05, 1.0), st.floats(0.0, 10.0), st.floats(0.0, 20.0))
def test_the_total_stays_and_nobody_counts_less_than_a_third_or_nothing(
    examples: list[Example], cap: float, ratio: float, half_life: float
) -> None:
    for found in (even(examples, ratio), capped(examples, cap)):
        assert total(found) == pytest.approx(total(examples))
        assert [replace(e, weight=1.0) for e in found] == examples, "only weights change"
        if found:
            assert min(e.weight for e in found) >= LEAST * max(e.weight for e in found) - 1e-9
    config = LearnerConfig(balance=ratio, source_cap=cap, half_life=half_life)
    assert all(e.weight > 0 for e in weighed(examples, config, lambda source: 0.0))


@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 2))
def test_even_answers_of_one_or_two_people_stay_as_they_are(answers: int, each: int, people: int) -> None:
    examples = of({(f"answer {a}", ("Ana", "Ben")[p]): each for a in range(answers) for p in range(people)})
    assert weighed(examples, LearnerConfig(), lambda source: 1.0) == examples


def test_a_common_answer_counts_less_an_example_but_more_in_all() -> None:
    found = even(of({("nothing", "Ana"): 160, ("dim", "Ana"): 10, ("off", "Ana"): 10}), ratio=4)
    each = {e.action.tool: e.weight for e in found}
    assert each["nothing"] == pytest.approx(each["dim"] * 0.5)
    assert even(found, ratio=0) == found


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 60), st.floats(0.34, 1.0))
def test_nobody_makes_up_more_than_the_cap_as_far_as_a_third_allows(ana: int, ben: int, eve: int, cap: float) -> None:
    examples = of({("a", "Ana"): ana, ("b", "Ben"): ben, ("c", "Eve"): eve})
    found = capped(examples, cap)
    shares = {source: weight / total(found) for source, weight in weight_by_source(found).items()}
    lightest = min(e.weight for e in found) / max(e.weight for e in found)
    assert max(shares.values()) <= cap + 1e-6 or lightest == pytest.approx(LEAST)
    if max(Counter(e.source for e in examples).values()) <= cap * len(examples):
        assert [e.weight for e in found] == pytest.approx([1.0] * len(examples))


def test_in_a_house_of_one_or_two_there_is_no_cap() -> None:
    examples = of({("a", "Ana"): 90, ("b", "Ben"): 1})
    assert capped(examples, 0.5) == examples


def test_words_of_somebody_who_is_often_contradicted_count_less() -> None:
    examples = of({("a", "Ana"): 5, ("b", "Ben"): 5})
    found = weight_by_source(weighed(examples, LearnerConfig(), {"Ana": 1.0, "Ben": 0.5}.__getitem__))
    assert found["Ben"] == pytest.approx(found["Ana"] / 2)


def test_old_words_count_less_here_too() -> None:
    found = weighed(of({("a", "Ana"): 3}), LearnerConfig(half_life=1), lambda source: 1.0)
    assert [e.weight for e in found] == pytest.approx([0.25, 0.5, 1.0])
