"""The house through the runtime's own perception: every situation wakes one percept, and what is unseen reads unseen."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import cast

from plugins.house import Case, stream, unseen
from plugins.house.model import BY_ACTUATOR, ROOMS
from plugins.house.player import Decided, Player
from plugins.house.resident import Resident
from runtime.bus import Bus
from runtime.config import PerceptionConfig
from runtime.journal import Journal
from runtime.messages import Action, Observation, Percept
from runtime.perception import Perception
from runtime.roles import observe

COUNT = 240


def _perception() -> Perception:
    """Only its pure part is used: no journal is written."""
    return Perception(
        cast(Journal, None), Bus(), PerceptionConfig(), [], zone=UTC, actuators=BY_ACTUATOR, scopes=ROOMS
    )  # fmt: skip


class Port:
    """Hands the player's messages to perception, and takes a wrong or a right decision by turns."""

    def __init__(self) -> None:
        self.perception = _perception()
        self.woken: list[Percept] = []
        self.asked: list[tuple[Case, list[Percept]]] = []
        self._clock = itertools.count()
        self.player = Player(self, Resident(1), lambda event: None)

    async def publish(self, topic: str, value: object) -> str:
        message: Observation = observe(topic, value, at=float(next(self._clock)))
        self.woken.extend(self.perception.perceive(message))
        return message.id

    async def ask(self, case: Case, wake: Callable[[], Awaitable[str]]) -> Decided | None:
        assert self.woken == [], "setting the stage must wake nothing"
        await wake()
        self.asked.append((case, self.woken))
        self.woken = []
        if case.right.arguments:
            await self.player.command(case.right.tool, str(case.right.arguments["level"]))
        return Decided(f"dc-{len(self.asked)}", case.right, "model", "base", True)

    async def correct(self, decision: str, right: Action, who: str) -> None: ...

    async def accept(self, decision: str, who: str) -> None: ...


async def test_every_situation_wakes_exactly_one_percept_in_its_scope() -> None:
    port = Port()
    for case in stream(1, COUNT):
        await port.player.play(case)
    assert len(port.asked) == COUNT
    for case, percepts in port.asked:
        (percept,) = percepts
        assert (percept.scope, percept.kind) == (case.room, case.kind)
        assert percept.text.endswith(f'{case.who} says: "{case.says}"') is bool(case.says)


async def test_a_situation_played_again_reads_the_same() -> None:
    port = Port()
    cases = stream(1, 40)
    for case in cases:
        await port.player.play(case)
    texts = [percepts[0].text for _, percepts in port.asked]
    for number in (3, 7, 7, 8, 0, 0, 31):
        await port.player.play(cases[number], react=False)
        case, percepts = port.asked[-1]
        assert case == cases[number]
        assert [percept.text for percept in percepts] == [texts[number]]


def test_unseen_situations_read_unlike_anything_in_the_stream() -> None:
    cases = stream(1, COUNT)
    seen = {_text(case) for case in cases}
    texts = [_text(case) for case in unseen(1, 200, cases)]
    assert not seen & set(texts)
    assert len(set(texts)) == len(texts)


def _text(case: Case) -> str:
    perception = _perception()
    percepts = [perception.perceive(observe(topic, value, at=1.0)) for topic, value in case.observations()]
    (percept,) = percepts[-1]
    return percept.text
