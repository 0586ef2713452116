"""The whole loop on the simulated home in mode `apprentice`: a good pupil in one room and a bad one in another."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from plugins.house import Case
from plugins.house.player import Decided
from plugins.override import Override
from plugins.simulated_home import SimulatedHome
from runtime import app as application
from runtime import config
from runtime.catalogue import Catalogue
from runtime.messages import Action, Outcome
from runtime.policy.protocol import Row

PATIENCE = 200.0  # seconds after which a hanging test fails
GOOD = "bathroom"


@dataclass
class Home(SimulatedHome):
    """Lets the test know what is right now."""

    case: Case | None = None

    async def ask(self, case: Case, wake: Callable[[], Awaitable[str]]) -> Decided | None:
        self.case = case
        return await super().ask(case, wake)


class Pupil:
    """In place of the model: knows one room by heart, and guesses in the others."""

    def __init__(self, home: Home) -> None:
        self._home, self._draw = home, random.Random(0)

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Row:
        case, actions = self._home.case, list(catalogue.finite())
        assert case is not None
        knows = case.room == GOOD or self._draw.random() < 0.2
        chosen: Action = case.right if knows else self._draw.choice(actions)
        logs = [math.log(0.9 if action == chosen else 0.1 / (len(actions) - 1)) for action in actions]
        return Row(actions=actions, log_probs=logs, chosen=chosen, log_p=max(logs))


async def test_what_it_knows_goes_live_and_what_it_guesses_does_not(tmp_path: Path) -> None:
    read = config.load(
        None, agent={"data": tmp_path}, broker={"mode": "none"}, modes={"*": "apprentice"}, learner={"enabled": False},
        policy={"memory": False, "table": False, "ask": "never"}, guard={"apprentice_bound": 0.5},
    )  # fmt: skip
    home, critic = Home(situations=400, seconds=0.0), Override(actuators=["*_lamp", "*_blind", "*_fan", "*_heating"])
    home.name, critic.name = "home", "override"
    async with application.opened(read, extra=[home, critic], live=False) as app:
        app.decider._policy = Pupil(home)
        await app.restore()
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as core:
            outcomes = app.bus.subscribe(Outcome, lossy=True)
            await app.stages(core)
            playing = core.create_task(app.operate(home))
            while (await outcomes.get()).status != "applied":
                pass
            playing.cancel()
            application.cancel(core)
        told = await app.apprentice.report()
    acting = {(name, row["action"]) for name, rows in told.items() for row in rows if row["acts"]}
    assert {name for name, _ in acting} == {"bathroom_fan"}, told
    assert any(not row["acts"] and "0 of 0" not in row["cases"] for row in told["living_room_lamp"])
