"""What people taught -> what of it is doubted, and why: out of fold, the memory says what it would answer without a lesson.

Confident learning (Northcutt et al., arXiv 1911.00068) with a judge that is solved in closed form. A lesson that the others
speak against may still be right: the first of a new habit always is. So it takes a source that is contradicted more often
than careful people are: then its contradicted lessons are doubted. A source of which most is contradicted is distrusted as
a whole. Nothing is dropped: who looks after the agent sees the list, and can vouch for a lesson or a source.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from runtime.messages import Message

OWN, GAP = (
    0.3,
    0.2,
)  # what was taught near here: the given answer has at most so much of the other's share, and so much less
CARELESS, HOSTILE = (
    0.1,
    0.3,
)  # share of a source's lessons that are contradicted; careful people: 4 %, liars: 46 to 81 %
COMPANY = 2  # other lessons of an answer that are asked for at least before one more is judged: what is new looks wrong
CONVICT = (
    3  # words of a source that are contradicted, at least, before all it says is doubted; one less for those words
)
FAIR = 0.4  # share of all lessons that the others confirm, at least: a judge that errs more often is none
LITTLE = 0.02  # what a doubted lesson weighs in the memory: so little that it is still judged by the others
WILSON = 1.28  # standard deviations below what was seen: 90 %


@dataclass(frozen=True)
class View:
    """What the other lessons say of one."""

    id: str  # of the feedback
    source: str
    own: float  # about the share of what was taught near here that was this answer
    best: float  # the same for the likeliest other answer
    other: str  # that answer, as the catalogue writes it
    company: int  # other lessons that teach this answer

    @property
    def contradicted(self) -> bool:
        return self.company >= COMPANY and self.own < OWN * self.best and self.best - self.own > GAP


class Doubted(Message, frozen=True, kw_only=True):
    """Feedback that is kept, but not learnt from."""

    feedback_id: str
    source: str
    reason: str
    case: str = ""  # the same for all words that contradict each other in one situation (`disputes`)


class Standing(Message, frozen=True, kw_only=True):
    """How one source's words look to the others'. `trust` in [0, 1] is what each of them counts in training."""

    source: str
    judged: int
    agreed: int
    contradicted: int
    trust: float


class Findings(Message, frozen=True, kw_only=True):
    """`sources` that are distrusted as a whole, and every feedback that is doubted."""

    doubted: tuple[Doubted, ...] = ()
    sources: tuple[str, ...] = ()
    standings: tuple[Standing, ...] = ()
    aside: tuple[str, ...] = ()  # ids of further words that are not learnt: older ones of those who disagree
    overruled: tuple[
        str, ...
    ] = ()  # ids that lost: somebody answers for another word, and not even the table obeys these
    upheld: tuple[str, ...] = ()  # ids that won by that


def find(views: Sequence[View], vouched: Collection[str] = (), distrusted: Collection[str] = ()) -> Findings:
    """`vouched`: ids of feedback, and sources, that somebody answers for; `distrusted`: sources that were until now."""
    said, against = Counter(view.source for view in views), Counter(v.source for v in views if v.contradicted)
    agreed = Counter(view.source for view in views if view.own >= view.best)
    if not views or not _fair(agreed, said, distrusted):
        return Findings()
    share = {source: lower(against[source], said[source]) for source in said if source not in vouched}
    hostile = {source for source, bound in share.items() if bound > HOSTILE and against[source] >= CONVICT}
    careless = {
        source for source, bound in share.items() if bound > CARELESS and against[source] >= CONVICT - 1
    } - hostile
    doubted = [
        Doubted(feedback_id=view.id, source=view.source, reason=_reason(view, hostile, against, said))
        for view in views
        if view.id not in vouched and (view.source in hostile or (view.source in careless and view.contradicted))
    ]
    standings = [
        Standing(
            source=source, judged=said[source], agreed=agreed[source], contradicted=against[source],
            trust=0.0 if source in hostile else 1.0 - share.get(source, 0.0),
        )
        for source in sorted(said)
    ]  # fmt: skip
    return Findings(doubted=tuple(doubted), sources=tuple(sorted(hostile)), standings=tuple(standings))


def _fair(agreed: Counter[str], said: Counter[str], distrusted: Collection[str]) -> bool:
    """Do the lessons confirm each other often enough to judge anybody? Nobody has more say in it than all others together, and
    who is distrusted has none: whoever lies more must not look better for it."""
    known = {source: count for source, count in said.items() if source not in distrusted}
    whole = sum(known.values())
    parts = {source: min(count, whole - count) or count for source, count in known.items()}
    return sum(part * agreed[source] / said[source] for source, part in parts.items()) >= FAIR * sum(parts.values())


def _reason(view: View, hostile: Collection[str], against: Counter[str], said: Counter[str]) -> str:
    if view.source in hostile:
        return f"{against[view.source]} of {said[view.source]} words of {view.source} contradict what others taught"
    return f"in situations like this {view.other} was right ({view.best:.0%} against {max(view.own, 0.0):.0%})"


def lower(count: int, of: int) -> float:
    """Wilson's lower bound of a rate: few words convict nobody."""
    share, z = count / of, WILSON
    centre = share + z * z / (2 * of)
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return (centre - spread) / (1 + z * z / of)
