"""Who blocks the loop: a thread that sees it stand still, looks at its stack, and names the plugin that is in it.

A plugin in the daemon's own process that computes or sleeps holds up everything. Nobody can take the loop away from it; but it is
named in the log while it happens, counted, and shown as a reason why the daemon is DEGRADED. A loop that hangs for ever is ended
by the service manager: `WATCHDOG=1` is sent from the loop itself.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from types import FrameType

import structlog

from runtime.metrics import Metrics
from runtime.roles import Plugin
from runtime.supervision import Child

BEAT = 0.1  # seconds between two signs of life
STALL = 1.0  # seconds without one that are a stall
REMEMBERED = 600.0  # seconds it is shown
DEPTH = 6  # frames of the stack that are logged

log = structlog.get_logger("stalls")


class Stalls:
    """`run` is its coroutine; the thread lives as long."""

    def __init__(self, plugins: Sequence[Plugin], children: Mapping[str, Child], metrics: Metrics) -> None:
        self._plugins, self._children, self._metrics = plugins, children, metrics
        self._beat = time.monotonic()
        self._over = threading.Event()
        self._seen: dict[str, tuple[int, float]] = {}  # who -> how often, and when last

    async def run(self) -> None:
        thread = threading.Thread(target=self._watch, args=(threading.get_ident(),), name="stalls", daemon=True)
        self._beat = time.monotonic()
        thread.start()
        try:
            while True:
                self._beat = time.monotonic()
                await asyncio.sleep(BEAT)
        finally:
            self._over.set()

    @property
    def causes(self) -> list[str]:
        """Who blocked the loop lately, for the condition."""
        now = time.monotonic()
        return [
            f"{who} blocked the loop {count} times; give it `isolate = true`"
            if who in self._children
            else f"the loop was blocked {count} times outside plugins; the log has the stack"
            for who, (count, at) in tuple(self._seen.items())
            if now - at < REMEMBERED
        ]

    def _watch(self, loop: int) -> None:
        told = 0.0  # the beat whose absence was told already
        while not self._over.wait(BEAT):
            beat = self._beat
            if beat != told and time.monotonic() - beat > STALL:
                told = beat
                frame = sys._current_frames().get(loop)
                if frame is not None:
                    self._tell(frame)

    def _tell(self, frame: FrameType) -> None:
        who = self.culprit(frame)
        count, _ = self._seen.get(who, (0, 0.0))
        self._seen[who] = (count + 1, time.monotonic())
        self._metrics.stalls.labels(who).inc()
        where = [f"{one.filename}:{one.lineno} {one.name}" for one in traceback.extract_stack(frame)[-DEPTH:]]
        log.error("the loop is blocked", plugin=who or "(none)", seconds=STALL, where=" <- ".join(reversed(where)))

    def culprit(self, frame: FrameType | None) -> str:
        """The plugin whose code is on the stack, the innermost first; "" = none."""
        modules = {type(plugin).__module__: plugin.name for plugin in self._plugins if not plugin.isolated}
        while frame is not None:
            mine = frame.f_locals.get("self")
            if isinstance(mine, Plugin) and mine.name in self._children:
                return mine.name
            if frame.f_globals.get("__name__") in modules:
                return modules[str(frame.f_globals["__name__"])]
            frame = frame.f_back
        return ""
