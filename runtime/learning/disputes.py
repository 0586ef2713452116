"""Words on one situation by people who disagree -> what is learnt of it, and what a person should decide.

Somebody who changes their mind is no dispute: the newest word of each person counts. Where at least two people who give
their names want different things, a majority of two to one decides what weights and memory learn, counting each one's
words up to MOST (nobody wins by repeating) times the trust in them. Without such a majority neither is learnt: weights that
follow whoever spoke last would swing for ever. The exact-match table still answers with the newest word, so whoever
corrected is obeyed, until somebody answers for one of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from runtime.learning.doubt import Doubted
from runtime.learning.duplicates import MOST, answer, situations
from runtime.messages import Action, Example, derived_id

NAMELESS = re.compile(r"|person|page|console|mqtt|chat \d+")  # ways in which words come when nobody says whose they are
MAJORITY = 2.0  # times the votes for all other answers


@dataclass
class Rulings:
    """`doubted` is shown; `aside` is not learnt either; `overruled` is not even obeyed, for somebody answers for `upheld`."""

    doubted: list[Doubted] = field(default_factory=list)
    aside: set[str] = field(default_factory=set)
    overruled: set[str] = field(default_factory=set)
    upheld: set[str] = field(default_factory=set)


def rule(
    examples: Iterable[Example],
    *,
    trust: Callable[[str], float],
    render: Callable[[str, Action], str],
    vouched: Collection[str] = (),
    overruled: Collection[str] = (),
) -> Rulings:
    """`vouched`: ids of feedback, and sources, that somebody answers for; `overruled`: ids that lost by that before."""
    found = Rulings()
    for key, words in situations(e for e in examples if e.reward > 0).items():
        newest = {speaker(word.source): word for word in words}
        if not _disagree(newest):
            continue
        case = _Case(derived_id("case", *key), words, newest, render)
        if winner := _upheld(words, newest, vouched):
            case.settle(winner, overruled, found)
        else:
            case.count(trust, found)
    return found


def speaker(source: str) -> str:
    """Whose word it is; "" if nobody said so: all who give no name count as one."""
    return "" if NAMELESS.fullmatch(source) else source


def _disagree(newest: dict[str, Example]) -> bool:
    """Two who gave their names want different things, and the situation is not one person's own request."""
    named = {who: word for who, word in newest.items() if who}
    own = any(f'{who} says: "' in word.text for who, word in named.items())
    return not own and len({answer(word.action) for word in named.values()}) > 1


def _upheld(words: Sequence[Example], newest: dict[str, Example], vouched: Collection[str]) -> Example | None:
    """The newest word that somebody answers for, by its id or, failing that, by who said it."""
    by_id = [word for word in words if word.id in vouched]
    by_source = [word for word in newest.values() if word.source in vouched]
    return max(by_id or by_source, key=lambda word: word.at, default=None)


@dataclass(frozen=True)
class _Case:
    """One situation that people disagree about. `newest`: what each of them said last."""

    id: str
    words: Sequence[Example]
    newest: dict[str, Example]
    render: Callable[[str, Action], str]

    def settle(self, winner: Example, overruled: Collection[str], found: Rulings) -> None:
        """Somebody answers for a word; only what was said against it since is shown."""
        found.upheld.add(winner.id)
        for word in self._others(winner):
            if word.at <= winner.at or word.id in overruled:
                found.overruled.add(word.id)
            else:
                self._against(word, f"you answered for {_name(winner)} before", found)

    def count(self, trust: Callable[[str], float], found: Rulings) -> None:
        """A majority decides, or nobody."""
        votes: defaultdict[bytes, float] = defaultdict(float)
        for who, word in self.newest.items():
            votes[answer(word.action)] += trust(word.source) * min(MOST, self._count(who, word))
        most = max(votes, key=lambda said: votes[said])
        decided = votes[most] >= MAJORITY * (sum(votes.values()) - votes[most])
        end = "the majority is learnt" if decided else "neither is learnt until you answer for one"
        for word in self.words:
            if not decided or answer(word.action) != most:
                self._against(word, end, found)

    def _against(self, word: Example, end: str, found: Rulings) -> None:
        if self.newest[speaker(word.source)] is not word:
            found.aside.add(word.id)  # an older word: the newest is shown for it
            return
        told = ", ".join(f"{_said(one, self.render)}{self._times(who, one)}" for who, one in self.newest.items())
        reason = f"{told} in the same situation; {end}"
        found.doubted.append(Doubted(feedback_id=word.id, source=word.source, reason=reason, case=self.id))

    def _others(self, winner: Example) -> list[Example]:
        return [word for word in self.words if answer(word.action) != answer(winner.action)]

    def _count(self, who: str, word: Example) -> int:
        """How often somebody said what they say now."""
        return sum(speaker(one.source) == who and answer(one.action) == answer(word.action) for one in self.words)

    def _times(self, who: str, word: Example) -> str:
        count = self._count(who, word)
        return f" ({count} times)" if count > 1 else ""


def _said(word: Example, render: Callable[[str, Action], str]) -> str:
    return f"{_name(word)} says {render(word.scope, word.action)}"


def _name(word: Example) -> str:
    return speaker(word.source) or "somebody"
