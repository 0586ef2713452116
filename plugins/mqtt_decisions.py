"""Every decision is published, with the words of the situation it was made in: `corrigible/<agent>/decision/<scope>`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Any

from plugins.mqtt_outbox import Outbox, spelled
from runtime.messages import Decision, Percept

REMEMBERED = 256  # percepts whose text a published decision can still mention


class Decisions:
    """`single`: the tools known to have one argument, which are written without its name."""

    def __init__(self, outbox: Outbox, single: Collection[str]) -> None:
        self._outbox, self._single = outbox, frozenset(single)
        self._texts: OrderedDict[str, str] = OrderedDict()

    def hear(self, percept: Percept) -> None:
        self._texts[percept.id] = percept.text
        while len(self._texts) > REMEMBERED:
            self._texts.popitem(last=False)

    def announce(self, agent: str, decision: Decision) -> None:
        scope = "".join("_" if letter in "+#/\0" else letter for letter in decision.scope) or "_"
        self._outbox.put(f"corrigible/{agent}/decision/{scope}", self._announced(decision))

    def _announced(self, decision: Decision) -> dict[str, Any]:
        single = self._single
        return {
            "id": decision.id, "percept": decision.percept_id, "scope": decision.scope,
            "text": self._texts.get(decision.percept_id, ""),
            "action": "; ".join(spelled(action, single) for action in decision.actions),
            "actions": [{"tool": action.tool, "arguments": action.arguments} for action in decision.actions],
            "by": decision.by, "adapter": decision.adapter, "p": decision.p_model, "chance": decision.chance,
            "choices": [spelled(action, single) for action in decision.choices],
        }  # fmt: skip
