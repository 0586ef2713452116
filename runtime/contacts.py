"""Spoken turns -> which of them are somebody coming back with the same thing, because it was not settled the first time.

A contact comes back to an earlier one of the same person (where nobody says who speaks: of the same scope) if

- the earlier answer was found wrong, and the words are alike or what is wanted is the same, or
- nobody said anything about the earlier answer, the words are alike, and the same answer came again.

What was found right is settled: asking for it again is a new wish, not a complaint.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from runtime.messages import Turn

WITHIN = 600.0  # seconds in which somebody comes back
ALIKE = 0.6  # share of their words that two sentences have in common (Jaccard)
LOOKED_AT = 50  # earlier contacts of a person whose words are compared
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+")  # where words are not spaced, every sign is one
Words = frozenset[str]


def repeated(turns: Sequence[Turn], within: float = WITHIN) -> frozenset[str]:
    """Ids of the decisions on contacts that come back; turns in the order of time. `within` seconds; inf = whenever."""
    people: defaultdict[tuple[str, str], _Person] = defaultdict(_Person)
    return frozenset(
        turn.decision for turn in turns if turn.words and people[turn.scope, turn.who].comes_back(turn, within)
    )


class _Person:
    """What somebody said so far."""

    def __init__(self) -> None:
        self._said: list[tuple[Turn, Words]] = []  # the newest last
        self._wanted: dict[str, Turn] = {}  # what was wanted -> the newest contact that wanted it

    def comes_back(self, turn: Turn, within: float) -> bool:
        words, wish = words_of(turn.words), turn.right or turn.decided
        asked = self._wanted.get(wish)
        open_wish = asked is not None and asked.wrong and turn.at - asked.at <= within
        found = open_wish or self._said_before(turn, words, within)
        self._said = [*self._said[1 - LOOKED_AT :], (turn, words)]
        self._wanted[wish] = turn
        return found

    def _said_before(self, turn: Turn, words: Words, within: float) -> bool:
        """Whether the newest contact in like words is not settled."""
        for earlier, its_words in reversed(self._said):
            if turn.at - earlier.at > within:
                return False
            if alike(words, its_words):
                return earlier.wrong or (not earlier.judged and earlier.decided == turn.decided)
        return False


def words_of(text: str) -> Words:
    return frozenset(WORD.findall(text.casefold()))


def alike(one: Words, other: Words) -> bool:
    together = len(one | other)
    return bool(together) and len(one & other) >= ALIKE * together
