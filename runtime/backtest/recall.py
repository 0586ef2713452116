"""Corrected once, stays corrected? What was taught is asked again: word for word, in other words, and long after."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from runtime.backtest.data import Line
from runtime.backtest.judged import Judged
from runtime.backtest.teacher import Said

LONG = 1000  # corrections later
ASKED = 300  # corrected situations asked again, at most
OTHERS = 3  # other rows of a class that are asked, at most


class Recall:
    """Notes what was taught while the stream runs. `before` and `after` a cycle: were held-out rows of a class right that
    had been taught once?"""

    def __init__(self, holdout: Sequence[Line]) -> None:
        self._others: defaultdict[str, list[Line]] = defaultdict(list)
        for line in holdout:
            self._others[line.output].append(line)
        self._lessons: Counter[str] = Counter()
        self._corrected: dict[str, tuple[Line, int]] = {}  # input -> (row, corrections until then)
        self._corrections = 0
        self.before: list[bool] = []
        self.after: list[bool] = []

    def taught(self, line: Line, said: Said, corrections: int) -> list[Line]:
        """Note what was said of a row; after the first lesson of its class, other rows to ask."""
        self._corrections = corrections
        self._lessons[line.output] += 1
        if said.action is not None:
            self._corrected[line.input] = line, corrections
        return self._like(line.output) if self._lessons[line.output] == 1 else []

    def once(self) -> list[Line]:
        """Other rows of the classes that have been taught just once by now."""
        return [line for output, count in self._lessons.items() if count == 1 for line in self._like(output)]

    def _like(self, output: str) -> list[Line]:
        return self._others[output][:OTHERS]

    async def asked(self, judge: Callable[[Sequence[Line]], Awaitable[Judged]]) -> dict[str, Any]:
        """Shares of right answers, None where nothing was asked; all but `paraphrase` with the weights alone."""
        newest = [line for line, _ in list(self._corrected.values())[-ASKED:]]
        old = [line for line, then in self._corrected.values() if self._corrections - then >= LONG][-ASKED:]
        return {
            "exact": _share((await judge(newest)).right_off) if newest else None,
            "paraphrase": {"before_cycle": _share(self.before), "after_cycle": _share(self.after)},
            "after_1000": _share((await judge(old)).right_off) if old else None,
            "asked": {
                "exact": len(newest),
                "before_cycle": len(self.before),
                "after_cycle": len(self.after),
                "after_1000": len(old),
            },
        }


def _share(right: Sequence[bool]) -> float | None:
    return sum(right) / len(right) if right else None
