"""What a backtest asks again."""

from __future__ import annotations

from runtime.backtest.data import Line
from runtime.backtest.recall import OTHERS, Recall
from runtime.backtest.teacher import Said


def test_held_out_rows_of_a_class_are_asked_after_its_first_lesson_only() -> None:
    holdout = [Line(input=f"{output} {n}", output=output) for output in ("pay", "card") for n in range(OTHERS + 1)]
    recall = Recall(holdout)
    asked = recall.taught(Line(input="how do I pay", output="pay"), Said("acceptance", "Ana"), 0)
    assert [line.input for line in asked] == [f"pay {n}" for n in range(OTHERS)]
    assert recall.once() == asked
    assert recall.taught(Line(input="pay it", output="pay"), Said("acceptance", "Ana"), 0) == []
    assert recall.once() == []
    assert recall.taught(Line(input="unknown to the holdout", output="loan"), Said("acceptance", "Ana"), 0) == []
