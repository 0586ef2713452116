"""What was decided with some lessons, and what without them -> by whom it was decided otherwise: weights, memory, both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from runtime.catalogue import Catalogue
from runtime.learning.trust import Belief
from runtime.messages import Action, Decision, Example


def unknown(catalogue: Catalogue, scope: str, taught: Sequence[Example], left: Sequence[Example]) -> Catalogue:
    """The catalogue without the replies that are known only from what is not `left`."""
    before, after = ([e.action for e in examples if e.scope == scope] for examples in (taught, left))
    return replace(catalogue, known=tuple(a for a in catalogue.known if a in after or a not in before))


def contrast(
    before: tuple[Belief, Belief], after: tuple[Belief, Belief], catalogue: Catalogue, tabled: Decision | None = None
) -> dict[str, Any]:
    """What the weights, the memory and both chose with the causes, and choose without. `tabled`: a decision that the table
    made, which without its correction would have been left to both."""
    logs = {
        "weights": [(belief.actions, belief.log_both) for belief, _ in (before, after)],
        "memory": [_remembered(belief) for _, belief in (before, after)],
        "both": [(belief.actions, belief.log_both) for _, belief in (before, after)],
    }
    found = {judge: _flip(*sides[0], *sides[1], catalogue) for judge, sides in logs.items()}
    if tabled is not None:
        found["both"] = _flip(tabled.actions, (0.0,), *logs["both"][1], catalogue)
    return {**found, "flips": bool(found["both"] and found["both"]["flips"])}


def _remembered(belief: Belief) -> tuple[tuple[Action, ...], tuple[float, ...]]:
    """What the memory says of what it knows: of the rest it says no more than that it might be anything."""
    known = belief.taught if belief.log_memory else ()
    return tuple(belief.actions[i] for i in known), tuple(belief.log_memory[i] for i in known)


def _flip(
    actions: Sequence[Action], logs: Sequence[float], others: Sequence[Action], others_logs: Sequence[float], catalogue: Catalogue
) -> dict[str, Any] | None:  # fmt: skip
    """None where that judge had nothing to say with the causes."""
    if not logs:
        return None
    chosen = actions[max(range(len(actions)), key=logs.__getitem__)]
    then = others[max(range(len(others)), key=others_logs.__getitem__)] if others_logs else None
    same = others.index(chosen) if others_logs and chosen in others else None
    return {
        "action": catalogue.render(chosen),
        "p": math.exp(max(logs)),
        "without": catalogue.render(then) if then is not None else "",
        "p_without": math.exp(others_logs[same]) if same is not None else 0.0,
        "flips": then != chosen,
    }
