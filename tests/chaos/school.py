"""Learning in a run: a model small enough to be trained within seconds, and a person who corrects and asks for a cycle.

Learner, trainer, gate and store are the real ones. Only the decisions are the worker's, which needs no model for them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import suppress
from pathlib import Path

from runtime.cli import link
from runtime.errors import CorrigibleError
from tests.chaos import facts
from tests.chaos.link import Link

TRIES, AGAIN = 100, 0.2  # seconds between two
NOTHING = """
[learner]
enabled = false
drift = false
"""
# Every candidate is let through as a trial: what is proven here is that the machinery holds, not that a random model learns.
LESSONS = """
[learner]
warm = false
pause = false
drift = false
after = 0
every = 0
layers = "all"
epochs = 1
min_steps = 30
holdout = 0.3
[gate]
min_holdout = 1000000
min_recall = 0
"""


def model(folder: Path) -> Path:
    """A random model of four small layers; torch is loaded for it, so only a run that learns makes one."""
    from tests.policy import tiny

    return Path(tiny.llama(folder).directory)


class Person:
    """Corrects the newest decision by MQTT, and asks for a cycle with the command that everybody has."""

    def __init__(self, port: int, agent: str, config: Path, journal: Path) -> None:
        self.link = Link(port, "person", (), lambda message: None)
        self._topic, self._config, self._journal = f"corrigible/{agent}/feedback", config, journal
        self._words = itertools.cycle(("ring", "chime", "knock", "buzz", "gong", "horn"))

    async def correct(self) -> None:
        """The broker has the word; nothing if nothing was decided yet."""
        newest = facts.newest_decision(self._journal)
        if newest is None:
            return
        decision, scope = newest
        said = {"decision": decision, "correct": f"{scope}_bell {next(self._words)}"}
        await self.link.online.wait()
        await self.link.publish(self._topic, json.dumps(said).encode())

    async def ask_to_learn(self) -> None:
        """Until a daemon heard it: the page of one that has just started comes last."""
        for _ in range(TRIES):
            with suppress(CorrigibleError, OSError):
                await asyncio.to_thread(lambda: link.ask(link.settings(self._config), "learn"))
                return
            await asyncio.sleep(AGAIN)
