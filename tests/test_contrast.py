"""Who would have decided otherwise without some lessons, and what was known only from them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from runtime.catalogue import REPLY, Catalogue
from runtime.contrast import contrast, unknown
from runtime.learning.trust import Belief
from runtime.messages import Action, Example
from tests.stages import BRIGHT, DIM, LAMP, decision

HALL = Catalogue(tools=(LAMP,))
HELLO, BYE = (Action(tool="reply", arguments={"text": text}) for text in ("Hello!", "Bye!"))


def believes(dim: float, memory: float | None = None, both: float | None = None) -> tuple[Belief, Belief]:
    """The weights' chance of DIM against BRIGHT, the memory's, and of both together."""

    def logs(p: float) -> tuple[float, float]:
        return math.log(p), math.log(1 - p)

    alone = Belief((DIM, BRIGHT), logs(dim), (), logs(dim))
    if memory is None or both is None:
        return alone, alone
    return alone, Belief((DIM, BRIGHT), logs(dim), logs(memory), logs(both), taught=(0, 1))


def test_each_judge_is_compared_with_itself() -> None:
    found = contrast(believes(0.6, 0.9, 0.8), believes(0.7, 0.2, 0.4), HALL)
    assert [found[judge]["flips"] for judge in ("weights", "memory", "both")] == [False, True, True]
    assert found["flips"]
    assert found["both"] == {
        "action": "lamp dim", "p": pytest.approx(0.8), "without": "lamp bright", "p_without": pytest.approx(0.4), "flips": True,
    }  # fmt: skip


def test_a_memory_that_falls_silent_has_nothing_to_say_and_one_that_was_is_no_judge() -> None:
    found = contrast(believes(0.6, 0.9, 0.8), believes(0.6), HALL)
    assert (found["memory"]["without"], found["memory"]["p_without"], found["memory"]["flips"]) == ("", 0.0, True)
    assert contrast(believes(0.6), believes(0.6), HALL)["memory"] is None


def test_what_is_forgotten_is_not_what_the_memory_says() -> None:
    """An action without a lesson may be likely because all others are not."""
    before, (alone, after) = believes(0.6, 0.9, 0.8), believes(0.6, 0.7, 0.8)
    found = contrast(before, (alone, replace(after, taught=(1,))), HALL)
    assert (found["memory"]["without"], found["memory"]["flips"]) == ("lamp bright", True)


def test_without_its_correction_what_the_table_decided_is_left_to_both() -> None:
    found: dict[str, Any] = contrast(believes(0.1), believes(0.1), HALL, decision(1, DIM, 0.0))
    assert (found["both"]["action"], found["both"]["p"], found["both"]["without"]) == ("lamp dim", 1.0, "lamp bright")
    assert (found["weights"]["flips"], found["flips"]) == (False, True)


def test_a_reply_is_unknown_without_the_lessons_it_came_from() -> None:
    chat = Catalogue(tools=(REPLY,), known=(HELLO, BYE))
    taught = [
        Example(id=f"fb-{n}", scope="chat", text=str(n), action=action, at=0.0)
        for n, action in enumerate((HELLO, BYE, BYE))
    ]
    assert unknown(chat, "chat", taught, taught[1:]).known == (BYE,)
    assert unknown(chat, "chat", taught, taught[:2]).known == (HELLO, BYE), "another lesson taught it too"
