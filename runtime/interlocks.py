"""What sensors have to say before an action may be carried out; no word, or none fresh enough, is a no.

Freshness is counted on the monotonic clock from when the word was received, so that no step of the wall clock makes an
old word new. What was known before a restart, and what a broker kept (`retained`), is of unknown age: it counts only
where an interlock asks for the last word however old (`within = 0`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from runtime.config import Interlock
from runtime.messages import Action, Scalar

AHEAD = 60.0  # seconds that another process's clock may be ahead of ours


@dataclass(frozen=True)
class Word:
    """A sensor's last value and when it was received; None = nobody knows how old it is."""

    value: Scalar
    received: float | None


class Interlocks:
    """Hears every reading, and says why not."""

    def __init__(self, configured: Sequence[Interlock], *, monotonic: Callable[[], float]) -> None:
        self._configured = tuple(configured)
        self._sensors = frozenset(interlock.sensor for interlock in configured)
        self._monotonic = monotonic
        self._words: dict[str, Word] = {}

    def hear(self, name: str, value: Scalar, age: float | None) -> None:
        """A sensor said something `age` seconds ago; None = unknown, and so is a word from far ahead: the clock was put back."""
        if name in self._sensors:
            known = age is not None and age >= -AHEAD
            received = self._monotonic() - max(0.0, age or 0.0) if known else None
            self._words[name] = Word(value, received)

    def refuse(self, action: Action) -> str | None:
        """The first condition that does not hold."""
        told = text(action)
        for interlock in self._configured:
            if any(fnmatchcase(told, pattern) for pattern in interlock.actions):
                reason = self._wanting(interlock)
                if reason is not None:
                    return f"{told!r} needs {interlock.sensor}: {reason} ([guard] interlock)"
        return None

    def _wanting(self, interlock: Interlock) -> str | None:
        word = self._words.get(interlock.sensor)
        if word is None:
            return "it has not said anything yet"
        if interlock.within and word.received is None:
            return "it has said nothing since the start"
        if interlock.within and word.received is not None:
            age = self._monotonic() - word.received
            if not 0 <= age <= interlock.within:
                return f"its last word is {age:.0f} s old, older than {interlock.within:g} s"
        return None if _holds(interlock, word.value) else f"it says {str(word.value)[:80]!r}"


def text(action: Action) -> str:
    """An action as the patterns of the configuration name it: the tool and its values."""
    return " ".join([action.tool, *(_spelled(value) for value in action.arguments.values())])


def _holds(interlock: Interlock, value: Scalar) -> bool:
    if interlock.equals and not any(_spelled(value) == _spelled(wanted) for wanted in interlock.equals):
        return False
    if interlock.at_least is None and interlock.at_most is None:
        return True
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    low = -math.inf if interlock.at_least is None else interlock.at_least
    return low <= value <= (math.inf if interlock.at_most is None else interlock.at_most)


def _spelled(value: object) -> str:
    """`ON`, `on`; `true`, True; 1 and 1.0 are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).casefold()
