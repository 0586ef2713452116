"""Two judges, and how far each is believed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from runtime.learning.memory import Recalled
from runtime.learning.trust import ADAPTER, BASE, Case, Trust, alone, believe, case, fit, sharpened
from runtime.messages import Action

A, B, C = (Action(tool=name) for name in "abc")


def recalled(lessons: int = 100, taught: tuple[float, ...] = (), **ridge: float) -> Recalled:
    values = np.array(list(ridge.values()), np.float32)
    counts = np.array(taught or [lessons / len(ridge)] * len(ridge), np.float32)
    return Recalled(tuple(Action(tool=name) for name in ridge), values, values, counts, 0.5, lessons)


def test_without_a_memory_the_model_speaks_alone() -> None:
    belief = believe([A, B], [math.log(0.7), math.log(0.3)], None, ADAPTER)
    assert belief.chosen == A
    assert belief.log_memory == ()
    assert belief.log_both == belief.log_model


def test_a_sure_memory_overrules_a_doubtful_model() -> None:
    belief = believe([A, B], [math.log(0.6), math.log(0.4)], recalled(b=0.9), ADAPTER)
    assert belief.chosen == B
    assert {type(p) for row in (belief.log_model, belief.log_memory, belief.log_both) for p in row} == {float}
    assert math.fsum(map(math.exp, belief.log_both)) == pytest.approx(1.0)


def test_one_lesson_does_not_answer_everything() -> None:
    assert believe([A, B], [math.log(0.7), math.log(0.3)], recalled(b=0.25), BASE).chosen == A
    assert believe([A, B], [math.log(0.7), math.log(0.3)], recalled(b=0.8), BASE).chosen == B
    assert believe([A, B], [math.log(0.9), math.log(0.1)], recalled(1, b=0.8), BASE).chosen == A


def test_weights_that_were_never_taught_anything_have_no_vote_on_what_was_taught() -> None:
    model = [math.log(0.9), math.log(0.1)]
    assert believe([A, B], model, recalled(2, a=0.3, b=0.4), BASE).chosen == A, (
        "but against the first lessons they have"
    )
    assert believe([A, B], model, recalled(100, a=0.3, b=0.4), BASE).chosen == B
    assert believe([A, B], model, recalled(100, b=0.4), BASE).chosen == B
    assert believe([A, B], model, recalled(100, b=0.4), ADAPTER).chosen == A, (
        "a trained one may put a new answer together"
    )
    assert believe([A, B], model, recalled(100, a=0.35, b=0.4), ADAPTER).chosen == A, "trained weights keep their word"


def test_the_first_lesson_of_an_answer_counts() -> None:
    model = [math.log(0.5), math.log(0.5)]
    assert believe([A, B], model, recalled(50, (25, 25), a=0.45, b=0.40), BASE).chosen == A
    assert believe([A, B], model, recalled(50, (49, 1), a=0.45, b=0.40), BASE).chosen == B


def test_what_only_the_memory_knows_is_a_candidate() -> None:
    belief = believe([A], [math.log(0.5)], recalled(c=1.0), ADAPTER)
    assert list(belief.actions) == [A, C]
    assert belief.chosen == C


def test_trust_goes_to_who_was_right() -> None:
    generator = np.random.default_rng(0)

    def cases(model_right: float) -> list[Case]:
        found = []
        for _ in range(200):
            right = int(generator.integers(2))
            model = right if generator.random() < model_right else 1 - right
            memory = right if generator.random() < 0.9 else 1 - right
            features = np.zeros((2, 3))
            features[:, 0] = math.log(0.2)
            features[model, 0], features[memory, 1] = math.log(0.8), 0.5
            found.append(Case(features, right))
        return found

    good, bad = fit(cases(0.95)), fit(cases(0.5))
    assert good.model > 1.0 > bad.model
    assert good.ridge > 1.0


def test_with_nothing_seen_it_stays_with_what_is_assumed() -> None:
    assert fit([]) == ADAPTER


def test_an_answer_nobody_thought_of_teaches_nothing() -> None:
    assert case([A], [0.0], recalled(b=1.0), C) is None
    assert case([A], [0.0], None, A) is None
    found = case([A, B], [-0.1, -2.4], recalled(b=1.0), B)
    assert found is not None
    assert found.right == 1
    assert Trust() == ADAPTER


def test_weights_that_are_too_sure_are_believed_less_where_the_memory_is_silent() -> None:
    boastful = [Case(np.array([[math.log(0.99), 0, 0], [math.log(0.01), 0, 0]]), int(n % 5 == 0)) for n in range(200)]
    power = alone(boastful)
    assert power < 0.5
    belief = believe([A, B], [math.log(0.99), math.log(0.01)], None, Trust(alone=power))
    assert math.exp(belief.log_both[0]) == pytest.approx(0.8, abs=0.05)


def test_what_was_not_considered_keeps_its_part() -> None:
    (p,) = sharpened([math.log(0.2)], 2.0)
    assert math.exp(p) == pytest.approx(0.04 / (0.04 + 0.64))


def test_on_what_they_were_never_taught_the_weights_do_not_vote() -> None:
    sure = [math.log(0.998), math.log(0.002)]
    taught = recalled(a=0.3, b=0.5)
    assert believe([A, B], sure, taught, ADAPTER).chosen == A
    belief = believe([A, B], sure, replace(taught, untaught=(B,)), ADAPTER)
    assert belief.chosen == B
    assert belief.log_model == pytest.approx(tuple(sure)), "what the model said is shown as it was"
    assert belief.heard == pytest.approx(sure[0]), "and it says nothing against what is done"
    assert believe([A, B], sure, replace(recalled(a=0.7, b=0.2), untaught=(B,)), ADAPTER).chosen == A
