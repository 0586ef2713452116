"""The second time scale of learning: what people taught, found again by what it is like, milliseconds after they said it.

Ridge regression from features (`runtime.policy.features`) to actions, kept solved while lessons come and go (recursive least
squares), so it is the same in whatever order they came and nothing is forgotten; and the nearest lessons beside it.
Everything about a lesson has a closed form: what the memory would say without it, and how much it says because of it.
It knows what the weights beside it were taught: on other answers those have no vote, and what they have learnt may count less.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from runtime.learning.leftout import LEAST, LeftOut
from runtime.learning.shelf import Floats, Lesson, Rows, Shelf
from runtime.messages import Action

RIDGE = 0.2  # added to the diagonal; features have length 1
CAUSES = 8  # lessons named as causes, at most
HIDDEN = 200  # lessons of one answer that can be left out at once: 20 ms
DOUBTED = 0.05  # a lesson that counts no more than this is not believed
NONE: Rows = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Recalled:
    """What the memory says of a situation, for each action that was taught in its scope."""

    actions: tuple[Action, ...]
    ridge: Floats  # [K] about the share of what was taught near here that was this action
    near: Floats  # [K] cosine to the nearest lesson with this action
    taught: Floats  # [K] lessons with this action there were
    novelty: float  # in (0, 1]: 1 = nothing like it was ever taught
    lessons: int  # there were in its scope
    untaught: tuple[Action, ...] = ()  # of the actions, those that the weights beside it were never taught


class Memory:
    """Lessons with their features; `recall` never changes anything."""

    def __init__(self, part: float = 1.0, learnt: Collection[str] = ()) -> None:
        """`part`: of its weight that a lesson keeps once the weights that serve have learnt it (`learnt`, ids)."""
        self._part, self._learnt = part, frozenset(learnt)
        self._versions: dict[str, frozenset[str]] = {}  # weights that decide -> lessons they were trained on
        self._clear(0)

    def __len__(self) -> int:
        return sum(map(len, self._shelves.values()))

    def __contains__(self, lesson: str) -> bool:
        return lesson in self._by_id

    @property
    def room(self) -> int:
        """Lessons that there is memory for."""
        return sum(shelf.room for shelf in self._shelves.values())

    @property
    def consolidates(self) -> bool:
        """Lessons lose weight once they are learnt."""
        return self._part < 1

    def knows(self, scope: str, text: str) -> bool:
        """True if something was taught in this very situation."""
        return self.lesson_on(scope, text) is not None

    def lesson_on(self, scope: str, text: str) -> Lesson | None:
        """What was taught in this very situation."""
        shelf = self._shelves.get(scope)
        row = shelf.row(text) if shelf is not None else None
        return shelf.lessons[row] if shelf is not None and row is not None else None

    def feature(self, scope: str, text: str) -> Floats | None:
        """What a lesson's situation is like, if it was written like this."""
        known = self.lesson_on(scope, text)
        if known is None or known.text != text:
            return None
        shelf, row = self._found(known)
        return np.array(shelf.features[row])

    def _clear(self, size: int) -> None:
        self._size = size  # of a feature; 0 = none was seen yet
        self._shelves: dict[str, Shelf] = {}  # by scope
        self._by_id: dict[str, Lesson] = {}
        self._columns: dict[tuple[str, bytes], int] = {}  # (scope, action) -> column
        self._actions: dict[str, list[tuple[int, Action]]] = {}  # scope -> its columns
        self._taught: dict[str, set[int]] = {version: set() for version in self._versions}  # -> columns
        self._believed: set[int] = set()  # columns with a lesson that counts
        self._solved: Floats = np.eye(size, dtype=np.float32) / RIDGE  # inverse of the features' weighted second moment
        self._answers: Floats = np.zeros((size, 16), np.float32)  # [size, columns]: a feature times this is `ridge`

    # --- lessons ------------------------------------------------------------------------------------------------

    def restore(self, lessons: Iterable[tuple[Lesson, Floats]]) -> None:
        """These and no others, solved at once."""
        given = list(lessons)
        self._clear(len(given[0][1]) if given else 0)
        if not given:
            return
        for lesson, feature in given:
            self._place(lesson, feature)
        shelves = self._shelves.values()
        weights = np.array([self._counts(lesson) for shelf in shelves for lesson in shelf.lessons])
        x = np.concatenate([shelf.features for shelf in shelves]).astype(np.float64)
        weighted = x * weights[:, None]
        self._solved = np.linalg.inv(weighted.T @ x + RIDGE * np.eye(self._size)).astype(np.float32)
        targets = np.zeros((len(x), self._answers.shape[1]))
        targets[np.arange(len(x)), np.concatenate([shelf.columns for shelf in shelves])] = 1.0
        self._answers = (self._solved @ (weighted.T @ targets)).astype(np.float32)

    def adopt(self, other: Memory) -> None:
        """Become what another one is, which may have been made in another thread; beside the weights that decide by now."""
        versions = self._versions
        self.__dict__.update(other.__dict__)
        if self._versions != versions:
            self.beside(versions)

    def remember(self, lesson: Lesson, feature: Floats) -> None:
        """In place of what was taught before in the same situation."""
        if not self._size:
            self._clear(len(feature))
        self._take_away(self.lesson_on(lesson.scope, lesson.text))
        self._shift(feature, self._place(lesson, feature), self._counts(lesson))

    def forget(self, ids: Iterable[str]) -> None:
        for lesson in ids:
            self._take_away(self._by_id.get(lesson))

    def reweighed(self, weights: Mapping[str, float]) -> Memory:
        """The same lessons, where some count something else (by id)."""
        return self._made_anew(self._learnt, weights)

    def consolidated(self, learnt: Collection[str]) -> Memory:
        """The same lessons beside weights that have learnt these (ids): they lose memory weight, and stay as explanations."""
        return self._made_anew(learnt, {})

    def _made_anew(self, learnt: Collection[str], weights: Mapping[str, float]) -> Memory:
        other = self.blank(learnt)
        other.restore(
            (replace(lesson, weight=weights.get(lesson.id, lesson.weight)), feature) for lesson, feature in self._all()
        )
        return other

    def blank(self, learnt: Collection[str] | None = None) -> Memory:
        """One without lessons, beside the same weights or others."""
        other = Memory(self._part, self._learnt if learnt is None else learnt)
        other.beside(self._versions)
        return other

    def beside(self, versions: Mapping[str, Collection[str]]) -> None:
        """These weights decide from now on; each was trained on the lessons (ids) of its lineage."""
        self._versions = {version: frozenset(lineage) for version, lineage in versions.items()}
        self._taught = {version: set() for version in self._versions}
        for shelf in self._shelves.values():
            for lesson, column in zip(shelf.lessons, shelf.columns.tolist(), strict=True):
                self._note(lesson, column)

    def _note(self, lesson: Lesson, column: int) -> None:
        """Who was taught this action."""
        if lesson.weight > DOUBTED:
            self._believed.add(column)
        for version, lineage in self._versions.items():
            if lesson.id in lineage:
                self._taught[version].add(column)

    def _counts(self, lesson: Lesson) -> float:
        return lesson.weight * (self._part if lesson.id in self._learnt else 1.0)

    def only(self, ids: Container[str]) -> Memory:
        """What it would be had nothing but these been taught (by id)."""
        other = self.blank()
        other.restore((lesson, feature) for lesson, feature in self._all() if lesson.id in ids)
        return other

    def lessons(self) -> list[Lesson]:
        return [lesson for shelf in self._shelves.values() for lesson in shelf.lessons]

    def _all(self) -> Iterator[tuple[Lesson, Floats]]:
        """Also in another thread, while this goes on."""
        for shelf in list(self._shelves.values()):
            for lesson, feature in zip(list(shelf.lessons), shelf.features, strict=False):
                yield lesson, feature.copy()

    def _place(self, lesson: Lesson, feature: Floats) -> int:
        """Note a lesson, in place of what there was, without solving for it. The column of its action."""
        if (old := self.lesson_on(lesson.scope, lesson.text)) is not None:
            self._drop(old)
        column = self._column_of(lesson)
        if lesson.scope not in self._shelves:
            self._shelves[lesson.scope] = Shelf(self._size)
        self._shelves[lesson.scope].put(lesson, feature, column)
        self._by_id[lesson.id] = lesson
        self._note(lesson, column)
        return column

    def _column_of(self, lesson: Lesson) -> int:
        key = (lesson.scope, msgspec.json.encode(lesson.action, order="sorted"))
        if key not in self._columns:
            column = self._columns[key] = len(self._columns)
            self._actions.setdefault(lesson.scope, []).append((column, lesson.action))
            if column == self._answers.shape[1]:
                self._answers = np.concatenate([self._answers, np.zeros_like(self._answers)], 1)
        return self._columns[key]

    def _take_away(self, lesson: Lesson | None) -> None:
        if lesson is None:
            return
        shelf, row = self._found(lesson)
        self._shift(shelf.features[row], int(shelf.columns[row]), -self._counts(lesson))
        self._drop(lesson)

    def _drop(self, lesson: Lesson) -> None:
        shelf, row = self._found(lesson)
        shelf.drop(row)
        del self._by_id[lesson.id]

    def _found(self, lesson: Lesson) -> tuple[Shelf, int]:
        """Where it lies."""
        shelf = self._shelves[lesson.scope]
        row = shelf.row(lesson.text)
        assert row is not None
        return shelf, row

    def _shift(self, feature: Floats, column: int, weight: float) -> None:
        """One lesson more (or, with a negative weight, less) in the solution: Sherman and Morrison's formula."""
        gain = self._solved @ feature
        gain_here = gain * np.float32(weight / (1.0 + weight * float(feature @ gain)))
        error = -(feature @ self._answers)
        error[column] += 1.0
        self._answers += np.multiply.outer(gain_here, error)
        self._solved -= np.multiply.outer(gain_here, gain)

    # --- questions ----------------------------------------------------------------------------------------------

    def recall(self, scope: str, feature: Floats, version: str = "") -> Recalled | None:
        """None if nothing was taught there. `version` of the weights that are asked, too."""
        shelf = self._shelves.get(scope)
        if not shelf:
            return None
        found = self._said(scope, shelf.features @ feature, feature @ self._answers, self._novelty(feature))
        return replace(found, untaught=self._untaught(scope, version))

    def _untaught(self, scope: str, version: str) -> tuple[Action, ...]:
        """Actions that people taught since these weights were trained; of others than those that decide, none is known."""
        taught = self._taught.get(version)
        if taught is None:
            return ()
        new = self._believed - taught
        return tuple(action for column, action in self._actions[scope] if column in new) if new else ()

    def without(self, lesson: str) -> Recalled | None:
        """What it would say of a lesson's situation had it not been taught. Raises KeyError for an unknown id."""
        known = self._by_id[lesson]
        shelf, row = self._found(known)
        if len(shelf) == 1:
            return None
        feature, weight = shelf.features[row], self._counts(known)
        leverage = weight * float(feature @ self._solved @ feature)
        said = feature @ self._answers
        said[shelf.columns[row]] -= leverage
        said /= max(1.0 - leverage, LEAST)
        novelty = self._novelty(feature)
        before = novelty / max(1.0 - novelty * weight / RIDGE, LEAST)  # Sherman and Morrison again, backwards
        return self._said(known.scope, shelf.features @ feature, said, min(before, 1.0), np.array([row]))

    def left_out(self, scope: str) -> LeftOut | None:
        """Every lesson of a scope, to ask the same of all of them; None where nothing would be left to answer."""
        shelf = self._shelves.get(scope)
        if shelf is None or len(shelf) < 2:
            return None
        columns = [column for column, _ in self._actions[scope]]  # they ascend, for they were given one after the other
        return LeftOut(
            lessons=tuple(shelf.lessons), actions=tuple(action for _, action in self._actions[scope]),
            own=np.searchsorted(columns, shelf.columns),
            counts=np.array([self._counts(lesson) for lesson in shelf.lessons], np.float32),
            features=shelf.features.copy(), solved=self._solved.copy(), answers=self._answers[:, columns],
        )  # fmt: skip

    def unheard(self, lesson: str) -> Recalled | None:
        """What it would say of a lesson's situation had nobody ever taught its answer there: how it takes what is outside of
        all it knows. None where that is the only answer, or too common a one. Raises KeyError for an unknown id."""
        known = self._by_id[lesson]
        shelf, row = self._found(known)
        feature, column = shelf.features[row], int(shelf.columns[row])
        hidden = np.flatnonzero(shelf.columns == column)
        if len(hidden) == len(shelf) or len(hidden) > HIDDEN:
            return None
        rows = shelf.features[hidden]
        weights = np.array([self._counts(shelf.lessons[one]) for one in hidden])
        gains = (rows @ self._solved).astype(np.float64)
        here = gains @ feature
        part = np.linalg.solve(np.diag(1 / weights) - gains @ rows.T, here)  # Woodbury's formula, backwards
        said = feature @ self._answers + (part @ (rows @ self._answers)).astype(np.float32)
        novelty = self._novelty(feature) + RIDGE * float(part @ here)
        return self._said(known.scope, shelf.features @ feature, said, min(novelty, 1.0), hidden, but=column)

    def _said(
        self, scope: str, cosines: Floats, ridge: Floats, novelty: float, gone: Rows = NONE, but: int = -1
    ) -> Recalled:
        """`gone`: rows of lessons left out; `but`: a column, an answer left out."""
        shelf = self._shelves[scope]
        kept = [(column, action) for column, action in self._actions[scope] if column != but]
        columns = [column for column, _ in kept]
        cosines[gone] = -1.0
        nearest = np.full(self._answers.shape[1], -1.0, np.float32)
        np.maximum.at(nearest, shelf.columns, cosines)
        taught = np.bincount(shelf.columns, minlength=len(nearest)).astype(np.float32)
        np.subtract.at(taught, shelf.columns[gone], 1.0)
        return Recalled(
            actions=tuple(action for _, action in kept), ridge=ridge[columns], near=nearest[columns],
            taught=taught[columns], novelty=novelty, lessons=len(shelf) - len(gone),
        )  # fmt: skip

    def _novelty(self, feature: Floats) -> float:
        return float(feature @ self._solved @ feature) * RIDGE

    def causes(self, scope: str, feature: Floats, action: Action, most: int = CAUSES) -> list[tuple[Lesson, float]]:
        """Lessons that taught this action, with their part in its `ridge`, largest first. The parts of all lessons add
        up to it."""
        shelf = self._shelves.get(scope)
        column = self._columns.get((scope, msgspec.json.encode(action, order="sorted")))
        if shelf is None or column is None:
            return []
        rows = np.flatnonzero(shelf.columns == column)
        said = (shelf.features[rows] @ (self._solved @ feature)).tolist()
        lessons = [shelf.lessons[row] for row in rows]
        found = [(lesson, self._counts(lesson) * part) for lesson, part in zip(lessons, said, strict=True)]
        return sorted(found, key=lambda pair: -pair[1])[:most]


def unpacked(feature: bytes) -> Floats:
    """A feature as the policy worker sends it."""
    return np.frombuffer(feature, np.float16).astype(np.float32)


__all__ = ["Floats", "Lesson", "Memory", "Recalled", "unpacked"]
