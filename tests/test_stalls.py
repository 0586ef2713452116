"""A plugin that blocks the loop is named while it does, counted, and shown as a cause."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass

import pytest

from runtime import stalls
from runtime.messages import Action, Percept
from runtime.metrics import Metrics
from runtime.roles import Rule
from runtime.stalls import Stalls
from runtime.supervision import Child


@dataclass
class Blocks(Rule):
    name: str = "sleepy"

    def __post_init__(self) -> None:
        self.let_go = threading.Event()

    def judge(self, percept: Percept, action: Action, now: object) -> str | None:
        self._deeper()
        return None

    def _deeper(self) -> None:
        self.let_go.wait()


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> tuple[Stalls, Blocks, Metrics]:
    monkeypatch.setattr(stalls, "STALL", 0.2)
    monkeypatch.setattr(stalls, "BEAT", 0.01)
    plugin, metrics = Blocks(), Metrics()
    return Stalls([plugin], {"sleepy": Child("sleepy")}, metrics), plugin, metrics


async def blocked(watch: Stalls, plugin: Blocks, by_plugin: bool) -> None:
    """Hold the loop until the watcher has told of it."""
    told = watch._tell

    def tell(frame: object) -> None:
        told(frame)  # type: ignore[arg-type]
        plugin.let_go.set()

    watch._tell = tell  # type: ignore[method-assign]
    running = asyncio.create_task(watch.run())
    await asyncio.sleep(0)
    if by_plugin:
        plugin.judge(Percept(id="p", scope="s", text="", at=0.0), Action(tool="x"), None)
    else:
        plugin.let_go.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_plugin_that_blocks_is_named(found: tuple[Stalls, Blocks, Metrics]) -> None:
    watch, plugin, metrics = found
    await blocked(watch, plugin, by_plugin=True)
    assert watch.causes == ["sleepy blocked the loop 1 times; give it `isolate = true`"]
    assert b'corrigible_stalls_total{plugin="sleepy"} 1.0' in metrics.text()


async def test_a_stall_of_somebody_else_is_not_a_plugins(found: tuple[Stalls, Blocks, Metrics]) -> None:
    watch, plugin, _ = found
    watch._plugins = []
    await blocked(watch, plugin, by_plugin=False)
    assert watch.causes == ["the loop was blocked 1 times outside plugins; the log has the stack"]


async def test_a_loop_that_turns_is_never_told(found: tuple[Stalls, Blocks, Metrics]) -> None:
    watch, _, _ = found
    running = asyncio.create_task(watch.run())
    for _ in range(50):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert watch.causes == []
