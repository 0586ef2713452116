"""Does it know what it knows? On a small world of clusters, some of which nobody ever taught."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runtime.learning import certainty, knowing, trust
from runtime.learning.knowing import Seen
from runtime.learning.memory import Floats, Lesson, Memory
from runtime.learning.trust import Belief, Knowing, Trust
from runtime.messages import Action

KINDS, EACH, SIZE = 12, 12, 48
ACTIONS = tuple(Action(tool=f"kind{kind}") for kind in range(KINDS))


class World:
    """The first half of the kinds is taught; the model has no opinion."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._centres = self._random.normal(size=(KINDS, SIZE))
        self.memory = Memory()
        self.memory.restore(
            (Lesson(f"{kind}-{n}", "room", f"{kind} {n}", ACTIONS[kind]), self.situation(kind))
            for kind in range(KINDS // 2)
            for n in range(EACH)
        )
        self.taught = ACTIONS[: KINDS // 2]
        self.logs = [-math.log(len(self.taught))] * len(self.taught)

    def situation(self, kind: int) -> Floats:
        vector = self._centres[kind] + 0.9 * self._random.normal(size=SIZE)
        found: Floats = (vector / np.linalg.norm(vector)).astype(np.float32)
        return found

    def seen(self) -> list[Seen]:
        lessons = self.memory.lessons()[::2]
        return [knowing.seen(self.taught, self.logs, one.action, one.id, self.memory) for one in lessons]

    def belief(self, kind: int, trusted: Trust) -> Belief:
        return trust.believe(self.taught, self.logs, self.memory.recall("room", self.situation(kind)), trusted)


def test_what_nobody_ever_taught_is_told_from_what_was_without_examples_of_it() -> None:
    world = World()
    trusted = knowing.fit(world.seen())
    inside = [world.belief(n % (KINDS // 2), trusted) for n in range(120)]
    outside = [world.belief(KINDS // 2 + n % (KINDS // 2), trusted) for n in range(120)]
    known = [knowing.chance(belief, trusted.knowing) for belief in inside]
    unknown = [knowing.chance(belief, trusted.knowing) for belief in outside]
    area = certainty.area(known, unknown)
    assert area is not None
    assert area > 0.95
    assert sum(p < 0.5 for p in known) / len(known) < 0.1
    assert sum(p < 0.5 for p in unknown) / len(unknown) > 0.4


def test_the_plausible_hold_the_right_one_as_often_as_promised() -> None:
    world = World()
    trusted = Trust(model=1.0, ridge=3.0, near=1.0)  # far from sure, so that the sets are wide
    known = knowing.learn(world.seen(), trusted)
    for miss in (0.1, 0.4):
        held = []
        for n in range(300):
            kind = n % (KINDS // 2)
            held.append(ACTIONS[kind] in knowing.plausible(world.belief(kind, trusted), known, miss))
        assert sum(held) / len(held) > 1 - miss - 0.08


def belief(*p: float) -> Belief:
    logs = tuple(math.log(one) for one in p)
    return Belief(ACTIONS[: len(p)], logs, logs, logs, 0.5)


def test_a_set_needs_enough_that_was_held_out() -> None:
    assert knowing.plausible(belief(0.9, 0.1), Knowing(missed=(0.1,) * 8), 0.1) == ()
    assert knowing.plausible(belief(0.9, 0.1), Knowing(missed=(0.1,) * 9), 0.1) == ACTIONS[:1]


def test_the_set_is_what_was_rarely_missed_and_never_empty() -> None:
    known = Knowing(missed=(*(0.1,) * 17, 0.7, 0.7, 0.95))
    assert knowing.plausible(belief(0.5, 0.35, 0.15), known, 0.1) == ACTIONS[:2]
    assert knowing.plausible(belief(0.2, 0.2, 0.2, 0.2), known, 0.1) == ACTIONS[:1]


def test_the_more_both_judges_doubt_and_the_newer_it_is_the_smaller_the_chance() -> None:
    known = Knowing()
    sure, doubtful = belief(0.95, 0.05), belief(0.5, 0.5)
    assert knowing.chance(sure, known) > knowing.chance(doubtful, known)
    new = Belief(sure.actions, sure.log_model, sure.log_memory, sure.log_both, 1.0)
    assert knowing.chance(sure, known) > knowing.chance(new, known)


def test_without_a_memory_the_weights_word_counts() -> None:
    alone = Belief(ACTIONS[:2], belief(0.7, 0.3).log_model, (), belief(0.7, 0.3).log_both)
    assert knowing.chance(alone, Knowing(bias=-9.0)) == pytest.approx(0.7)


def test_with_nothing_held_out_it_stays_with_what_is_assumed() -> None:
    assert knowing.fit([]) == trust.ADAPTER
