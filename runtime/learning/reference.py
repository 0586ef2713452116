"""A fixed set of real situations, decided by champion and candidate -> how much one release would change at once.

The situations are real ones, also those that nobody judged: what a held-out item says of the candidate is only what people
talk about. Once in the set a situation stays, so that versions far apart can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from runtime.messages import Message, portion

SIZE = 100  # situations: a change of a quarter is seen to within 9 points, and asking both takes seconds
LONGEST = 2000  # characters of one
SHOWN = 20  # flips a report lists
UNSEEN = 1e-4  # probability of an action that a version left out as too unlikely


class Reference(Message, frozen=True, kw_only=True):
    """One situation of the set."""

    scope: str
    text: str


class Flip(Message, frozen=True, kw_only=True):
    """A decision that the release would change."""

    scope: str
    text: str
    before: str
    after: str


class Drift(Message, frozen=True, kw_only=True):
    situations: int
    flips: float  # share of them that are decided otherwise
    divergence: float  # mean KL(champion || candidate) over the actions, in nats
    flipped: tuple[Flip, ...] = ()  # the first SHOWN


class Answer(NamedTuple):
    """What a version says to a situation: the action as text, and the log-probability of each."""

    said: str
    log_probs: Mapping[str, float]


def extended(kept: Sequence[Reference], offered: Iterable[Reference], size: int) -> list[Reference]:
    """The set with what it lacks: which of the `offered` ones hangs on their text alone. None that it has ever goes."""
    known = set(kept)
    fresh = sorted({one for one in offered if one not in known and len(one.text) <= LONGEST}, key=_place)
    return [*kept, *fresh[: max(size - len(kept), 0)]]


def _place(one: Reference) -> float:
    return portion("reference", one.scope, one.text)


def measure(asked: Sequence[Reference], champion: Sequence[Answer], candidate: Sequence[Answer]) -> Drift:
    """Both answered what was `asked`, in its order."""
    flipped = [
        Flip(scope=one.scope, text=one.text, before=before.said, after=after.said)
        for one, before, after in zip(asked, champion, candidate, strict=True)
        if before.said != after.said
    ]
    apart = [divergence(before.log_probs, after.log_probs) for before, after in zip(champion, candidate, strict=True)]
    count = max(len(asked), 1)
    return Drift(
        situations=len(asked),
        flips=len(flipped) / count,
        divergence=math.fsum(apart) / count,
        flipped=tuple(flipped[:SHOWN]),
    )


def divergence(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """KL(before || after) in nats, over the actions that either names."""
    names = sorted({*before, *after})
    p, q = _chances(before, names), _chances(after, names)
    return max(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)), 0.0)


def _chances(log_probs: Mapping[str, float], names: Sequence[str]) -> list[float]:
    raw = [max(math.exp(log_probs[name]), UNSEEN) if name in log_probs else UNSEEN for name in names]
    return [one / math.fsum(raw) for one in raw]
