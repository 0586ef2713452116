"""What befalls processes in years, in minutes: kill -9 of the daemon, the policy worker, the trainer and the broker."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from signal import SIGKILL

import httpx

from plugins.house.processes import Daemon
from runtime.errors import CorrigibleError

VICTIMS = ("daemon", "policy", "trainer", "broker")
PAUSE = (1.0, 10.0)  # seconds that all is well before the next one is killed


class Nemesis:
    """Kills each victim so many times, in an order and at moments drawn from a seed. A trainer is taken whenever one runs."""

    def __init__(
        self,
        daemon: Daemon,
        victims: Mapping[str, int],
        seed: int,
        tell: Callable[[str], None],
        pause: tuple[float, float] = PAUSE,
    ) -> None:
        self._daemon = daemon
        self._pause = pause
        self._random = random.Random(seed)
        self._tell = tell
        self.left = dict(victims)

    async def run(self) -> None:
        """Until every victim had its share."""
        while any(self.left.values()):
            with suppress(httpx.HTTPError, CorrigibleError, ProcessLookupError):
                await self._daemon.ready()
                await asyncio.sleep(self._random.uniform(*self._pause))
                status = await self._daemon.ask("GET", "/api/status")
                self._kill(status["processes"])

    def _kill(self, processes: dict[str, int | None]) -> None:
        alive = [victim for victim, left in self.left.items() if left and processes[victim]]
        if not alive:
            return
        victim = "trainer" if "trainer" in alive else self._random.choice(alive)
        os.kill(processes[victim] or 0, SIGKILL)
        self.left[victim] -= 1
        self._tell(f"  [yellow]kill -9 of the {victim}[/yellow] ({self.left[victim]} to come)")
