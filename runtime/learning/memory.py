"""The second time scale of learning: what people taught, found again by what it is like, milliseconds after they said it.

Ridge regression from features (`runtime.policy.features`) to actions, kept solved while lessons come and go (recursive least
squares), so it is the same in whatever order they came and nothing is forgotten; and the nearest lessons beside it.
Everything about a lesson has a closed form: what the memory would say without it, and how much it says because of it.
It knows what the weights beside it were taught: on other answers those have no vote, and what they have learnt may count less.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.learning.duplicates import canonical
from runtime.messages import Action

RIDGE = 0.2  # added to the diagonal; features have length 1
CAUSES = 8  # lessons named as causes, at most
HIDDEN = 200  # lessons of one answer that can be left out at once: 20 ms
DOUBTED = 0.05  # a lesson that counts no more than this is not believed
FIRST = 256  # lessons there is room for at the beginning
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Lesson:
    """One situation and the right action in it. `id` is the feedback's; a scope has one lesson a situation, however its text
    is written (`duplicates.canonical`)."""

    id: str
    scope: str
    text: str
    action: Action
    weight: float = 1.0


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
        return len(self._places)

    def __contains__(self, lesson: str) -> bool:
        return lesson in self._by_id

    @property
    def consolidates(self) -> bool:
        """Lessons lose weight once they are learnt."""
        return self._part < 1

    def knows(self, scope: str, text: str) -> bool:
        """True if something was taught in this very situation."""
        return (scope, canonical(text)) in self._places

    def lesson_on(self, scope: str, text: str) -> Lesson | None:
        """What was taught in this very situation."""
        place = self._places.get((scope, canonical(text)))
        return self._lessons[place] if place is not None else None

    def _clear(self, size: int) -> None:
        self._lessons: list[Lesson | None] = []
        self._places: dict[tuple[str, str], int] = {}  # (scope, canonical text) -> place
        self._by_id: dict[str, int] = {}
        self._columns: dict[tuple[str, bytes], int] = {}  # (scope, action) -> column
        self._actions: dict[str, list[tuple[int, Action]]] = {}  # scope -> its columns
        self._taught: dict[str, set[int]] = {version: set() for version in self._versions}  # -> columns
        self._believed: set[int] = set()  # columns with a lesson that counts
        self._features: Floats = np.zeros((FIRST, size), np.float32)
        self._column: NDArray[np.int64] = np.zeros(FIRST, np.int64)
        self._scope: dict[str, list[int]] = {}  # places
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
        kept = [(i, lesson) for i, lesson in enumerate(self._lessons) if lesson is not None]
        places = [i for i, _ in kept]
        weights = np.array([self._counts(lesson) for _, lesson in kept])
        x = self._features[places].astype(np.float64)
        weighted = x * weights[:, None]
        self._solved = np.linalg.inv(weighted.T @ x + RIDGE * np.eye(x.shape[1])).astype(np.float32)
        targets = np.zeros((len(kept), self._answers.shape[1]))
        targets[np.arange(len(kept)), self._column[places]] = 1.0
        self._answers = (self._solved @ (weighted.T @ targets)).astype(np.float32)

    def adopt(self, other: Memory) -> None:
        """Become what another one is, which may have been made in another thread; beside the weights that decide by now."""
        versions = self._versions
        self.__dict__.update(other.__dict__)
        if self._versions != versions:
            self.beside(versions)

    def remember(self, lesson: Lesson, feature: Floats) -> None:
        """In place of what was taught before in the same situation."""
        if not self._features.shape[1]:
            self._clear(len(feature))
        before = self._places.get((lesson.scope, canonical(lesson.text)))
        if before is not None:
            self._take_away(before)
        place = self._place(lesson, feature)
        self._shift(place, self._counts(lesson))

    def forget(self, ids: Iterable[str]) -> None:
        for lesson in ids:
            if (place := self._by_id.get(lesson)) is not None:
                self._take_away(place)

    def reweighed(self, weights: Mapping[str, float]) -> Memory:
        """The same lessons, where some count something else (by id)."""
        return self._made_anew(self._learnt, weights)

    def consolidated(self, learnt: Collection[str]) -> Memory:
        """The same lessons beside weights that have learnt these (ids): they lose memory weight, and stay as explanations."""
        return self._made_anew(learnt, {})

    def _made_anew(self, learnt: Collection[str], weights: Mapping[str, float]) -> Memory:
        other = self.blank(learnt)
        other.restore(
            (replace(lesson, weight=weights.get(lesson.id, lesson.weight)), self._features[place].copy())
            for place, lesson in enumerate(self._lessons)
            if lesson is not None
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
        for place, lesson in enumerate(self._lessons):
            if lesson is not None:
                self._note(lesson, int(self._column[place]))

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
        other.restore(
            (lesson, self._features[place].copy())
            for place, lesson in enumerate(self._lessons)
            if lesson is not None and lesson.id in ids
        )
        return other

    def lessons(self) -> list[Lesson]:
        return [lesson for lesson in self._lessons if lesson is not None]

    def _place(self, lesson: Lesson, feature: Floats) -> int:
        """Note a lesson without solving for it."""
        old = self._places.get((lesson.scope, canonical(lesson.text)))
        if old is not None:
            self._drop(old)
        place = len(self._lessons)
        if place == len(self._features):
            self._features = np.concatenate([self._features, np.zeros_like(self._features)])
            self._column = np.concatenate([self._column, np.zeros_like(self._column)])
        self._lessons.append(lesson)
        self._features[place], self._column[place] = feature, self._column_of(lesson)
        self._note(lesson, int(self._column[place]))
        self._places[lesson.scope, canonical(lesson.text)] = self._by_id[lesson.id] = place
        self._scope.setdefault(lesson.scope, []).append(place)
        return place

    def _column_of(self, lesson: Lesson) -> int:
        key = (lesson.scope, msgspec.json.encode(lesson.action, order="sorted"))
        if key not in self._columns:
            column = self._columns[key] = len(self._columns)
            self._actions.setdefault(lesson.scope, []).append((column, lesson.action))
            if column == self._answers.shape[1]:
                self._answers = np.concatenate([self._answers, np.zeros_like(self._answers)], 1)
        return self._columns[key]

    def _take_away(self, place: int) -> None:
        lesson = self._lessons[place]
        assert lesson is not None
        self._shift(place, -self._counts(lesson))
        self._drop(place)

    def _drop(self, place: int) -> None:
        lesson = self._lessons[place]
        assert lesson is not None
        self._lessons[place] = None
        del self._places[lesson.scope, canonical(lesson.text)], self._by_id[lesson.id]
        self._scope[lesson.scope].remove(place)

    def _shift(self, place: int, weight: float) -> None:
        """One lesson more (or, with a negative weight, less) in the solution: Sherman and Morrison's formula."""
        feature = self._features[place]
        gain = self._solved @ feature
        gain_here = gain * np.float32(weight / (1.0 + weight * float(feature @ gain)))
        error = -(feature @ self._answers)
        error[self._column[place]] += 1.0
        self._answers += np.multiply.outer(gain_here, error)
        self._solved -= np.multiply.outer(gain_here, gain)

    # --- questions ----------------------------------------------------------------------------------------------

    def recall(self, scope: str, feature: Floats, version: str = "") -> Recalled | None:
        """None if nothing was taught there. `version` of the weights that are asked, too."""
        places = self._scope.get(scope)
        if not places:
            return None
        found = self._said(
            scope, places, feature @ self._answers, self._features[places] @ feature, self._novelty(feature)
        )
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
        place = self._by_id[lesson]
        known = self._lessons[place]
        assert known is not None
        feature = self._features[place]
        others = [other for other in self._scope[known.scope] if other != place]
        if not others:
            return None
        leverage = self._counts(known) * float(feature @ self._solved @ feature)
        said = feature @ self._answers
        said[self._column[place]] -= leverage
        said /= max(1.0 - leverage, 1e-6)
        novelty = self._novelty(feature)
        before = novelty / max(
            1.0 - novelty * self._counts(known) / RIDGE, 1e-6
        )  # Sherman and Morrison again, backwards
        return self._said(known.scope, others, said, self._features[others] @ feature, min(before, 1.0))

    def unheard(self, lesson: str) -> Recalled | None:
        """What it would say of a lesson's situation had nobody ever taught its answer there: how it takes what is outside of
        all it knows. None where that is the only answer, or too common a one. Raises KeyError for an unknown id."""
        known = self._lessons[self._by_id[lesson]]
        assert known is not None
        feature, column = self._features[self._by_id[lesson]], self._column[self._by_id[lesson]]
        hidden = [place for place in self._scope[known.scope] if self._column[place] == column]
        others = [place for place in self._scope[known.scope] if self._column[place] != column]
        if not others or len(hidden) > HIDDEN:
            return None
        rows = self._features[hidden]
        weights = np.array([self._counts(self._lessons[place]) for place in hidden])  # type: ignore[arg-type]
        gains = (rows @ self._solved).astype(np.float64)
        here = gains @ feature
        part = np.linalg.solve(np.diag(1 / weights) - gains @ rows.T, here)  # Woodbury's formula, backwards
        said = feature @ self._answers + (part @ (rows @ self._answers)).astype(np.float32)
        novelty = self._novelty(feature) + RIDGE * float(part @ here)
        return self._said(known.scope, others, said, self._features[others] @ feature, min(novelty, 1.0), int(column))

    def _said(
        self, scope: str, places: Sequence[int], ridge: Floats, cosines: Floats, novelty: float, but: int = -1
    ) -> Recalled:
        """`but` a column: an answer left out."""
        kept = [(column, action) for column, action in self._actions[scope] if column != but]
        columns = [column for column, _ in kept]
        nearest = np.full(self._answers.shape[1], -1.0, np.float32)
        np.maximum.at(nearest, self._column[places], cosines)
        taught = np.bincount(self._column[places], minlength=self._answers.shape[1]).astype(np.float32)
        return Recalled(
            actions=tuple(action for _, action in kept), ridge=ridge[columns], near=nearest[columns],
            taught=taught[columns], novelty=novelty, lessons=len(places),
        )  # fmt: skip

    def _novelty(self, feature: Floats) -> float:
        return float(feature @ self._solved @ feature) * RIDGE

    def causes(self, scope: str, feature: Floats, action: Action, most: int = CAUSES) -> list[tuple[Lesson, float]]:
        """Lessons that taught this action, with their part in its `ridge`, largest first. The parts of all lessons add
        up to it."""
        column = self._columns.get((scope, msgspec.json.encode(action, order="sorted")))
        gain = self._solved @ feature
        found = []
        for place in self._scope.get(scope, ()):
            lesson = self._lessons[place]
            if lesson is not None and self._column[place] == column:
                found.append((lesson, self._counts(lesson) * float(self._features[place] @ gain)))
        return sorted(found, key=lambda pair: -pair[1])[:most]


def unpacked(feature: bytes) -> Floats:
    """A feature as the policy worker sends it."""
    return np.frombuffer(feature, np.float16).astype(np.float32)
