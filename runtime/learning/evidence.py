"""JOURNAL -> what a candidate is compared by besides what people taught: decisions that chance had a part in, and the fixed set
of reference situations. The trainer asks candidate and champion; the gate judges (`offpolicy`, `reference`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from runtime.journal import Journal
from runtime.learning import reference
from runtime.learning.offpolicy import Logged
from runtime.learning.reference import Reference
from runtime.messages import Action, Decision, Feedback

CHANCES = "chances"  # the journal's note of decisions that two versions drew lots for: (id, chance of the action)
REFERENCE = "reference"  # the journal's note of the reference set
WORDS = 1000  # newest feedbacks on decisions by chance that are read
NEWEST = 300  # of those decisions, what is asked again
OFFERED = 5000  # newest situations of which the reference set is made
Believes = Callable[[str, str], bool]  # a feedback (id) and its source
RIGHT = ("correction", "override", "preference")  # say which action is right


def everybody(feedback: str, source: str) -> bool:
    """Where nobody is doubted."""
    return True


async def logged(journal: Journal, believes: Believes = everybody) -> list[Logged]:
    """The newest decisions that chance had a part in and people who are believed spoke of, oldest first."""
    shared = dict(await journal.metadata(CHANCES) or ())
    words: dict[str, tuple[Decision, str, list[Feedback]]] = {}
    for decision, text, feedback in await journal.chosen_by_chance(WORDS, tuple(shared)):
        if believes(feedback.id, feedback.source):
            words.setdefault(decision.id, (decision, text, []))[2].append(feedback)
    found = []
    for decision, text, said in words.values():
        reward, right = earned(decision.actions[0], said)
        if reward is not None:
            chance = shared.get(decision.id, decision.p_behaviour)
            found.append(
                Logged(
                    id=decision.id, scope=decision.scope, text=text, action=decision.actions[0], chance=chance,
                    reward=reward, right=right,
                )
            )  # fmt: skip
    return found[-NEWEST:]


def earned(action: Action, said: Sequence[Feedback]) -> tuple[float | None, Action | None]:
    """(reward in [0, 1], what would have been right) of an action by the newest word on it; a rating is no word where
    somebody said what is right. None = nobody said either."""
    for one in reversed(said):
        if one.kind in RIGHT and one.action is not None:
            return float(one.action == action), one.action
        if one.kind == "acceptance":
            return 1.0, action
    rating = next((one.rating for one in reversed(said) if one.rating is not None), None)
    return (None if rating is None else (rating + 1) / 2), None


async def situations(journal: Journal) -> list[Reference]:
    """The reference set; as long as it is not full it takes in what was seen since."""
    kept = msgspec.convert(await journal.metadata(REFERENCE) or [], list[Reference])
    if len(kept) >= reference.SIZE:
        return kept
    offered = [Reference(scope=scope, text=text) for scope, text in await journal.situations(OFFERED)]
    found = reference.extended(kept, offered, reference.SIZE)
    if len(found) > len(kept):
        await journal.set_metadata(REFERENCE, msgspec.to_builtins(found))
    return found
