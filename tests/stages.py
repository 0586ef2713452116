"""What the tests of the stages share: a journal with one percept, and a policy that is a table instead of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from runtime.catalogue import Catalogue, Tool
from runtime.errors import Unavailable
from runtime.messages import Action, Decision, Observation, Percept
from runtime.policy.protocol import Row

LAMP = Tool(name="lamp", arguments={"level": {"enum": ["off", "dim", "bright"]}}, required=("level",), actuator="lamp")
DIM, BRIGHT = (Action(tool="lamp", arguments={"level": level}) for level in ("dim", "bright"))


@dataclass
class TableModel:
    """Gives its answer most of the probability; `broken` makes it raise."""

    answer: Action = BRIGHT
    broken: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Row:
        self.asked.append((text, adapter))
        if self.broken:
            raise Unavailable("the worker is gone")
        actions = list(catalogue.finite())
        logs = [math.log(0.7 if action == self.answer else 0.3 / (len(actions) - 1)) for action in actions]
        return Row(actions=actions, log_probs=logs, chosen=self.answer, log_p=max(logs))


def percept(number: int, text: str = "dark", scope: str = "room") -> Percept:
    return Percept(id=f"pc-{number}", scope=scope, text=text, at=float(number))


def observation(topic: str, payload: bytes, number: int = 0, at: float = 1_800_000_000.0) -> Observation:
    return Observation(id=f"ob-{topic}-{number}-{payload[:20]!r}", topic=topic, payload=payload, at=at)


def decision(number: int, action: Action, at: float) -> Decision:
    return Decision(
        id=f"dc-{number}", percept_id=f"pc-{number}", scope="room", actions=(action,), by="model", adapter="base",
        p_model=0.7, p_behaviour=1.0, at=at,
    )  # fmt: skip
