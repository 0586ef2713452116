"""Where the memory keeps the lessons of one scope: their features lie in one array, so that one product compares them all.

Rows are in no order. The last one takes the place of one that goes, so that there are never more rows than lessons.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.learning.duplicates import canonical
from runtime.messages import Action

FIRST = 16  # lessons there is room for at the beginning
Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Lesson:
    """One situation and the right action in it. `id` is the feedback's; a scope has one lesson a situation, however its text
    is written (`duplicates.canonical`)."""

    id: str
    scope: str
    text: str
    action: Action
    weight: float = 1.0


class Shelf:
    """Lessons of one scope with their features; `columns` says which action each of them taught."""

    def __init__(self, size: int) -> None:
        self.lessons: list[Lesson] = []
        self._rows: dict[str, int] = {}  # canonical text -> row
        self._features: Floats = np.zeros((FIRST, size), np.float32)
        self._columns: Rows = np.zeros(FIRST, np.int64)

    def __len__(self) -> int:
        return len(self.lessons)

    @property
    def features(self) -> Floats:
        """[N, size], not a copy."""
        return self._features[: len(self.lessons)]

    @property
    def columns(self) -> Rows:
        """[N], not a copy."""
        return self._columns[: len(self.lessons)]

    def row(self, text: str) -> int | None:
        """Where the lesson on this situation lies."""
        return self._rows.get(canonical(text))

    @property
    def room(self) -> int:
        """Lessons that there is memory for."""
        return len(self._columns)

    def put(self, lesson: Lesson, feature: Floats, column: int) -> None:
        """A lesson on a situation that there is none on yet."""
        row = self._rows[canonical(lesson.text)] = len(self.lessons)
        self.lessons.append(lesson)
        if row == self.room:
            self._features = np.concatenate([self._features, np.zeros_like(self._features)])
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)])
        self._features[row], self._columns[row] = feature, column

    def drop(self, row: int) -> None:
        """The last lesson moves into its place."""
        end = len(self.lessons) - 1
        del self._rows[canonical(self.lessons[row].text)]
        last = self.lessons.pop()
        if row != end:
            self.lessons[row], self._rows[canonical(last.text)] = last, row
            self._features[row], self._columns[row] = self._features[end], self._columns[end]
