"""A plugin whose package is broken."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.roles import Emit, Sensor

raise SystemExit("this package needs another one")


@dataclass
class Never(Sensor):
    async def sense(self, emit: Emit) -> None: ...
