"""Who says what was right: several people, some of whom may err and some of whom may lie, in one of three ways."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import msgspec

from runtime.errors import BadInput
from runtime.messages import Action

Way = Literal["correct", "rate", "override"]
PEOPLE = 10
LIARS = 2  # of them, if any lie: the last ones


@dataclass(frozen=True)
class Said:
    """What somebody says on a decision. `action`: what should have been done; None = nothing else."""

    kind: Literal["correction", "acceptance", "rating", "override"]
    source: str
    action: Action | None = None
    rating: float | None = None


class Teacher:
    """Knows the right answer of every row; what is said of it is another matter."""

    def __init__(
        self,
        actions: Sequence[Action],
        *,
        way: Way = "correct",
        noise: float = 0.0,
        hostile: float = 0.0,
        people: int = PEOPLE,
        liars: int = LIARS,
        seed: int = 0,
    ) -> None:
        """`actions`: all there are; `noise`: share of words that name a wrong answer by mistake; `hostile`: share of words that come from liars, who
        always give the same wrong answer in place of a right one; `liars` of the `people` are some. Raises BadInput where nobody could
        say what these ask for."""
        if hostile and not 1 <= liars <= people - (hostile < 1):
            raise BadInput(f"--hostile-sources {liars} of --sources {people}: one at least must lie, and one be honest")
        self._actions = list({msgspec.json.encode(action): action for action in actions}.values())
        self._way, self._noise, self._hostile = way, noise, hostile
        self._people, self._honest = people, people - (liars if hostile else 0)
        self._random = random.Random(f"teacher {seed}")

    def says(self, decided: Action, right: Action) -> Said:
        """On a decision for `decided` where `right` would have been right."""
        liar = self._random.random() < self._hostile
        believed = self._lie(right) if liar else self._mistaken(right)
        first, last = (self._honest, self._people) if liar else (0, self._honest)
        source = f"person-{self._random.randrange(first, last)}"
        if self._way == "rate":
            return Said("rating", source, rating=1.0 if decided == believed else -1.0)
        if decided == believed:
            return Said("acceptance", source)
        return Said("correction" if self._way == "correct" else "override", source, action=believed)

    def _lie(self, right: Action) -> Action:
        place = self._actions.index(right) if right in self._actions else 0
        return self._actions[(place + 1) % len(self._actions)]

    def _mistaken(self, right: Action) -> Action:
        if self._random.random() >= self._noise:
            return right
        return self._random.choice([action for action in self._actions if action != right] or [right])


def way_of(name: str) -> Way:
    """Raises BadInput for a way that nobody speaks in."""
    for way in get_args(Way):
        if way == name:
            return cast(Way, way)
    raise BadInput(f"--teacher {name!r}: write one of {', '.join(get_args(Way))}")
