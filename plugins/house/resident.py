"""How the resident answers what the home did: undoes it by hand, says what would have been right, thanks, or is silent.

Silence is the commonest answer to what is right, and it is not acceptance. Pure but for the seeded generator.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plugins.house.model import BY_ACTUATOR, Value, after
from plugins.house.scenes import Case
from runtime.messages import NOTHING, Action

BY_HAND = {"sensor": 0.7, "speech": 0.4}  # share of wrong acts that are put right at the device, by kind of situation
GUEST_ACTS = 0.08  # chance that a guest fiddles with a device; no habit of the house, and the timer puts it back
THANKS = {"sensor": 0.3, "speech": 0.5}  # share of right acts that are accepted aloud


@dataclass(frozen=True)
class Reaction:
    """`acts` are what the person does at the devices, in order; the others go to the feedback topic."""

    kind: Literal["override", "correction", "thanks", "silence"]
    acts: tuple[tuple[str, Value], ...] = ()


class Resident:
    """One household's way to answer. The same seed and the same decisions give the same answers."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"resident {seed}")
        self._guests = random.Random(f"guest {seed}")

    def react(self, case: Case, taken: Action) -> Reaction:
        """Answer to the action that was really carried out (`nothing` if none was)."""
        draw, other = self._rng.random(), self._rng.random()
        if case.accepts(taken):
            return Reaction("thanks" if draw < THANKS[case.kind] else "silence")
        if draw >= BY_HAND[case.kind]:
            return Reaction("correction", acts_to_right(case, taken))
        acts = acts_to_right(case, taken)
        return Reaction("override", acts if other < 0.5 else acts[::-1])

    def visited(self, case: Case) -> tuple[str, Value] | None:
        """What a guest sets, if one is here and has a different taste."""
        actuator = self._guests.choice(sorted(case.devices))
        value = self._guests.choice(BY_ACTUATOR[actuator].values)
        if self._guests.random() >= GUEST_ACTS or after(case.devices, case.right)[actuator] == value:
            return None
        return actuator, value


def acts_to_right(case: Case, taken: Action) -> tuple[tuple[str, Value], ...]:
    """What has to be set by hand so that the room is as if only the right action had been taken."""
    now, wanted = after(case.devices, taken), after(case.devices, case.right)
    return tuple((name, value) for name, value in wanted.items() if now.get(name) != value)


def effective(action: Action, carried_out: bool) -> Action:
    """What the resident sees of a decision."""
    return action if carried_out else NOTHING


def accuracy(cases: Sequence[Case], actions: Sequence[Action]) -> float:
    """Balanced: the mean over the right actions of the share that was accepted."""
    hits: dict[str, list[bool]] = {}
    for case, action in zip(cases, actions, strict=True):
        hits.setdefault(case.right_text, []).append(case.accepts(action))
    return sum(sum(row) / len(row) for row in hits.values()) / len(hits) if hits else 0.0
