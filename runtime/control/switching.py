"""What people switch: modes, table and memory, the kill switch, held commands, cycles, and which version serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from runtime.action import Acting
from runtime.config import Config, Mode
from runtime.decision import Decider
from runtime.errors import BadInput, NotFound, Unavailable
from runtime.guard import Modes
from runtime.journal import Journal, backups
from runtime.journal.notes import MODES_KEY
from runtime.learning.learner import Learner
from runtime.learning.releases import Releases
from runtime.situations import Catalogues

LEAVE = 0.2  # seconds in which the answer gets out before the page goes
MODE_NAMES = ("observe", "apprentice", "confirm", "act")


def _nobody(_: bool) -> None:
    raise Unavailable("only a daemon that runs can start again; use `corrigible run --safe`")


class Switching:
    """Each takes effect before it answers; `learn` only begins."""

    def __init__(
        self, config: Config, journal: Journal, catalogues: Catalogues, decider: Decider, acting: Acting, modes: Modes,
        learner: Learner, releases: Releases,
    ) -> None:  # fmt: skip
        self._config, self._journal, self._catalogues = config, journal, catalogues
        self._decider, self._acting, self._modes = decider, acting, modes
        self._learner, self._releases = learner, releases
        self.on_safe: Callable[[bool], None] = _nobody

    async def set_mode(self, actuator: str, mode: str) -> dict[str, Any]:
        if mode not in MODE_NAMES:
            raise BadInput(f"there is no mode {mode!r}; the modes are {', '.join(MODE_NAMES)}")
        if actuator not in self._catalogues.actuators:
            raise NotFound(
                f"there is no actuator {actuator!r}; the actuators are {', '.join(sorted(self._catalogues.actuators))}"
            )
        switched: dict[str, Mode] = {**self._modes.switched, actuator: mode}  # type: ignore[dict-item]
        await self._journal.set_metadata(MODES_KEY, to_builtins(switched))
        self._modes.switched = switched
        return {"actuator": actuator, "mode": mode}

    async def set_table(self, on: bool) -> dict[str, Any]:
        """Switch the exact-match table for now (`[policy] table` holds again after a restart)."""
        self._decider.table_on = on
        return {"table": on}

    async def set_memory(self, on: bool) -> dict[str, Any]:
        """Let the memory of similar situations take part in decisions, or not, for now (`[policy] memory` holds again after a
        restart). It goes on remembering meanwhile."""
        if on and not self._config.policy.memory:
            raise Unavailable("there is no memory to switch on: [policy] memory is false; set it and start again")
        self._decider.memory_on = on
        return {"memory": on}

    async def kill(self, on: bool) -> dict[str, Any]:
        await asyncio.to_thread(self._acting.guard.kill, on)
        return {"kill": on}

    async def set_safe(self, on: bool) -> dict[str, Any]:
        """Start again in safe mode, or with everything that is configured; takes seconds and begins once this has answered."""
        asyncio.get_running_loop().call_later(LEAVE, self.on_safe, on)
        return {"safe": on}

    async def approve(self, command_id: str, yes: bool) -> dict[str, Any]:
        await self._acting.approve(command_id, yes)
        return {"command_id": command_id, "approved": yes}

    async def resolve(self, command_id: str, done: bool) -> dict[str, Any]:
        """A person looked what became of an uncertain command."""
        await self._acting.resolve(command_id, done, f"a person says it was {'' if done else 'not '}done")
        return {"command_id": command_id, "done": done}

    async def backup(self, to: str = "") -> dict[str, Any]:
        """Copy journal and adapters, also while everything runs; without a place beside the others in `data/backups`."""
        data = self._config.agent.data
        return {"backup": str(await asyncio.to_thread(backups.make, data, Path(to) if to else None))}

    async def learn(self) -> dict[str, Any]:
        if self._learner.current is not None:
            return {"started": False, "why": f"cycle {self._learner.current.id} is running"}
        self._learner.ask()
        return {"started": True}

    async def promote(self, id: str) -> dict[str, Any]:
        return dict(to_builtins(await self._releases.release(id, why="promote", by="person")))

    async def rollback(self) -> dict[str, Any]:
        return dict(to_builtins(await self._releases.rollback(by="person")))
