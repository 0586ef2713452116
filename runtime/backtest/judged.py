"""Rows that were asked at one moment, and what weights, memory and both said of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from runtime.learning import knowing, trust
from runtime.learning.trust import Belief, Trust
from runtime.messages import Action
from runtime.policy.protocol import Row


class Judged:
    """In the order of the rows; actions as text that can be compared."""

    def __init__(
        self, gold: Sequence[Action], rows: Sequence[Row], beliefs: Sequence[Belief], tables: Sequence[Action | None],
        trusted: Trust = trust.ADAPTER, miss: float = 0.1,
    ) -> None:  # fmt: skip
        """`miss` as in `[policy]`."""
        self.gold, self.rows = list(gold), list(rows)
        self.keys = [key(action) for action in gold]
        self.weights = [key(row.chosen) for row in rows]
        self.memory = [_remembered(belief) for belief in beliefs]
        said = [key(table or belief.chosen) for table, belief in zip(tables, beliefs, strict=True)]
        self.right = [g == s for g, s in zip(self.keys, said, strict=True)]
        self.right_off = [g == s for g, s in zip(self.keys, self.weights, strict=True)]
        self.sure = [
            1.0 if table else math.exp(belief.log_both[belief.best])
            for table, belief in zip(tables, beliefs, strict=True)
        ]
        self.sure_off = [_alone(row, trusted) for row in rows]
        self.chance = [
            1.0 if table else knowing.chance(belief, trusted.knowing)
            for table, belief in zip(tables, beliefs, strict=True)
        ]
        self.plausible = [knowing.plausible(belief, trusted.knowing, miss) for belief in beliefs]


def _alone(row: Row, trusted: Trust) -> float:
    """How sure the weights are without the memory."""
    if row.chosen not in row.actions:
        return math.exp(row.log_p)
    logs = trust.believe(row.actions, row.log_probs, None, trusted).log_both
    return math.exp(logs[row.actions.index(row.chosen)])


def key(action: Action) -> str:
    return f"{action.tool} {sorted(action.arguments.items(), key=lambda kv: kv[0])}"


def _remembered(belief: Belief) -> str:
    """What the memory alone would do; "" if it knows nothing."""
    if not belief.log_memory:
        return ""
    return key(belief.actions[max(range(len(belief.actions)), key=belief.log_memory.__getitem__)])
