"""Where answers are written rather than picked, a piece that is left out may change what is considered at all: then what it did
for the action is said to be not comparable, and that is no error."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.catalogue import REPLY, Catalogue, Tool
from runtime.explaining import Explaining
from runtime.journal import Journal
from runtime.learning.memory import Lesson, Memory
from runtime.learning.registry import Registry
from runtime.messages import Action, Decision, Percept
from runtime.policy.protocol import Row
from runtime.situations import Catalogues

FEATURE = np.array([1.0, 0.0, 0.0, 0.0], np.float16)
NAME = Tool(name="SetName", arguments={"name": {"type": "string"}}, required=("name",))


def named(name: str) -> Action:
    return Action(tool="SetName", arguments={"name": name})


def reply(text: str) -> Action:
    return Action(tool="reply", arguments={"text": text})


@dataclass
class Writer:
    """Says what it was told to say of a situation; `picks` are the known answers it considers everywhere."""

    says: Mapping[str, Action]
    picks: tuple[Action, ...] = ()

    async def score(self, texts: Sequence[str], catalogue: Catalogue, adapter: str, **asked: Any) -> list[Row]:
        return [self.row(text) for text in texts]

    def row(self, text: str) -> Row:
        said = self.says[text]
        considered = list(self.picks) or [said]
        logs = [math.log(0.9 / 2**i) for i in range(len(considered))]
        return Row(
            actions=considered, log_probs=logs, chosen=said, log_p=-0.4, free=True, log_p_gold=-0.3,
            feature=FEATURE.tobytes(),
        )  # fmt: skip


@dataclass
class Serving:
    adapter: str = "base"


@dataclass
class Desk:
    """A scope where things are written, and one decision in it."""

    journal: Journal
    folder: Path

    async def mattered(self, action: Action, policy: Writer, memory: Memory | None, tool: Tool) -> dict[str, Any]:
        percept = Percept(id="pc-1", scope="desk", text="call it kitchen", at=1.0)
        decided = Decision(
            id="dc-1", percept_id="pc-1", scope="desk", actions=(action,), by="model", adapter="base", p_model=0.7,
            p_behaviour=1.0, at=1.0,
        )  # fmt: skip
        await self.journal.put(percept, decided)
        catalogues = Catalogues([{"desk": (tool,)}])
        for known in policy.picks:
            catalogues.know("desk", known)
        store = Registry(self.folder / "adapters")
        explaining = Explaining(self.journal, policy, catalogues, store, Serving(), memory)  # type: ignore[arg-type]
        return await explaining.mattered(decided)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with Journal.open(tmp_path / "j.db") as journal:
        yield Desk(journal, tmp_path)


def falls(found: dict[str, Any]) -> dict[str, tuple[bool, bool, str]]:
    """What is known of each piece: both, weights, and what would be said instead."""
    return {
        piece["text"]: (piece["both"] is not None, piece["weights"] is not None, piece["instead"])
        for piece in found["pieces"]
    }


async def test_a_piece_without_which_another_argument_is_written_cannot_be_compared(desk: Desk) -> None:
    memory = Memory()
    memory.remember(Lesson("fb-1", "desk", "call it hall", named("hall")), FEATURE.astype(np.float32))
    kitchen, bath = named("kitchen"), named("bath")
    says = {"call it kitchen": kitchen, "it kitchen": kitchen, "call kitchen": kitchen, "call it": bath}
    found = await desk.mattered(kitchen, Writer(says), memory, NAME)
    assert (found["action"], found["against"]) == ("SetName kitchen", "SetName hall")
    assert falls(found) == {"call": (True, True, ""), "it": (True, True, ""), "kitchen": (False, False, "SetName bath")}


async def test_a_piece_without_which_another_reply_is_written_cannot_be_compared(desk: Desk) -> None:
    hi, bye = reply("hi"), reply("bye")
    says = {"call it kitchen": reply("new"), "it kitchen": reply("new"), "call kitchen": hi, "call it": reply("other")}
    found = await desk.mattered(hi, Writer(says, (hi, bye)), None, REPLY)
    assert (found["action"], found["against"]) == ("reply hi", "reply new")
    assert falls(found) == {
        "call": (True, True, ""),
        "it": (False, False, "reply hi"),
        "kitchen": (False, False, "reply other"),
    }
