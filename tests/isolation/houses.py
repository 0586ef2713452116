"""A house of a few plugins in processes of their own, and what reaches the runtime from them, without the rest of a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from runtime.config import BrokerConfig
from runtime.errors import BadInput
from runtime.isolation.loading import introduced
from runtime.isolation.remote import Remote
from runtime.messages import Feedback, Observation
from runtime.roles import Context
from runtime.supervision import Child, supervise

SAFETY = 120.0  # seconds after which a test that hangs is ended


@dataclass
class House:
    """Plugins under supervision, and what they said."""

    context: Context
    plugins: dict[str, Remote] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)
    said: list[Observation | Feedback] = field(default_factory=list)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def emit(self, message: Observation | Feedback) -> None:
        if isinstance(message, Observation) and message.topic == "refused":
            raise BadInput("nobody wants this")
        async with self.heard:
            self.said.append(message)
            self.heard.notify_all()

    async def hears(self, count: int, plugin: str = "") -> list[Observation | Feedback]:
        """The first messages of a plugin (of all), when there are so many."""
        async with self.heard:
            await self.heard.wait_for(lambda: len(self.of(plugin)) >= count)
        return self.of(plugin)[:count]

    def of(self, plugin: str) -> list[Observation | Feedback]:
        return [message for message in self.said if message.id.startswith(f"{plugin}:" if plugin else "")]

    async def operate(self, plugin: Remote) -> None:
        try:
            await plugin.live(self.emit)
        finally:
            await plugin.stop()

    def run(self, name: str) -> None:
        plugin, child = self.plugins[name], self.children[name]
        self.tasks[name] = asyncio.create_task(supervise(child, lambda: self.operate(plugin)))

    async def becomes(self, name: str, state: str) -> Child:
        """Wait until a plugin's supervision has ended so."""
        await self.tasks[name]
        assert self.children[name].state == state, self.children[name]
        return self.children[name]


@asynccontextmanager
async def opened(data: Path, *entries: dict[str, Any]) -> AsyncIterator[House]:
    """Introduced and under supervision inside the block; nothing is left of them after it."""
    context = Context("test", data, BrokerConfig(mode="configured", host="localhost"), ZoneInfo("Asia/Tokyo"))
    found = House(context)
    async with asyncio.timeout(SAFETY):
        made = await introduced([dict(entry, isolate=True) for entry in entries], context)
        found.plugins = {plugin.name: plugin for plugin in made.values()}
        found.children = {name: Child(name) for name in found.plugins}
        try:
            for name in found.plugins:
                found.run(name)
            yield found
        finally:
            for task in found.tasks.values():
                task.cancel()
            await asyncio.gather(*found.tasks.values(), return_exceptions=True)
            await asyncio.gather(*(plugin.stop() for plugin in found.plugins.values()))
