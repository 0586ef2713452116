"""kill -9 of the daemon under traffic: how long until it serves again, by the table and by the model, with every real part.

    python -m tests.benchmarks.bench_restart [--kills 30] [--seed 0]

A service manager's part is played by starting it again after 50 ms. Messages come all the time: by turns one of two situations
that the table knows, and one that nobody has seen before, no more of these than the model can decide. The first decision of each
kind after a kill ends the clock; the next kill comes when what waited for the model meanwhile is decided.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt

from plugins import broker as brokers
from runtime.config import BrokerConfig
from tests.chaos import facts
from tests.chaos.house import Daemon
from tests.chaos.nemesis import until

LIMITS = {"table": 2.0, "model": 8.0}  # seconds, p99
EVERY = 0.2  # seconds between two messages
FEW = 3  # messages under way that are no backlog
PATIENCE = 120.0  # seconds
KNOWN = ("dusk", "dawn")
CONFIG = """
[agent]
name = "restart"
data = "{data}"
timezone = "UTC"
[http]
port = 0
[log]
format = "json"
[broker]
mode = "configured"
host = "127.0.0.1"
port = {port}
[policy]
ask = "never"
[learner]
enabled = false
[supervision]
crashes = 1000000
[guard]
rate = 1000000
budget = 1000000
[[plugin]]
use = "plugins.mqtt:Mqtt"
sensors = ["home/+/+"]
[[plugin.actuators]]
name = "hall_lamp"
scope = "hall"
topic = "act/hall_lamp/set"
values = ["off", "dim", "bright"]
[[plugin.actuators]]
name = "porch_lamp"
scope = "porch"
topic = "act/porch_lamp/set"
values = ["off", "dim", "bright"]
"""


class Service(Daemon):
    """The daemon as it is shipped, started again whenever it dies."""

    def __init__(self, config: Path) -> None:
        super().__init__(config)
        self._command = (sys.executable, "-m", "runtime")


@dataclass
class Ears:
    """Everything that was decided, as it is published."""

    heard: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    async def listen(self, port: int) -> None:
        async with _client(port) as client:
            await client.subscribe("corrigible/restart/decision/#", qos=1)
            async for message in client.messages:
                self.heard.append((time.monotonic(), json.loads(bytes(message.payload))))

    async def first(self, wanted: Callable[[dict[str, Any]], bool], since: float) -> tuple[float, dict[str, Any]]:
        """The first one after a moment (monotonic)."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for at, decision in self.heard:
                    if at > since and wanted(decision):
                        return at, decision
                await asyncio.sleep(0.005)


async def speak(port: int, seed: int) -> None:
    drawn = random.Random(seed)
    async with _client(port) as client:
        for number in itertools.count():
            word = KNOWN[number // 2 % 2] if number % 2 else f"light {drawn.getrandbits(40):x}"
            room = "hall" if number % 2 else "porch"
            body = json.dumps({"value": word, "id": f"e{number}"})
            await client.publish(f"home/{room}/sky", body, qos=1)
            await asyncio.sleep(EVERY)


def _client(port: int) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5)


async def measured(kills: int, seed: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {kind: [] for kind in LIMITS}
    folder = Path(tempfile.mkdtemp(prefix="restart-"))
    broker = await brokers.start(BrokerConfig(mode="mosquitto", port=0), folder)
    config = folder / "config.toml"
    config.write_text(CONFIG.format(data=folder / "data", port=broker.config.port))
    service, ears, drawn = Service(config), Ears(), random.Random(seed)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(broker.stop)
        for work in (ears.listen(broker.config.port), speak(broker.config.port, seed)):
            stack.callback(asyncio.create_task(work).cancel)
        await stack.enter_async_context(service.running())
        await _taught(ears, broker.config.port)
        for _ in range(kills):
            await until(lambda: facts.waiting(service.data / "journal.db") <= FEW, PATIENCE)
            await asyncio.sleep(drawn.uniform(0.5, 1.5))  # when it comes is not its to choose
            assert service.pid is not None
            os.kill(service.pid, signal.SIGKILL)
            killed = time.monotonic()
            for kind, times in found.items():
                at, _ = await ears.first(lambda decision, kind=kind: decision["by"] == kind, killed)  # type: ignore[misc]
                times.append(at - killed)
    return found


async def _taught(ears: Ears, port: int) -> None:
    """Correct until the table answers."""
    async with _client(port) as client:
        while not any(decision["by"] == "table" for _, decision in ears.heard):
            _, decision = await ears.first(lambda one: any(word in one["text"] for word in KNOWN), time.monotonic())
            word = {"decision": decision["id"], "correct": "hall_lamp dim", "id": decision["id"]}
            await client.publish("corrigible/restart/feedback", json.dumps(word), qos=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = asyncio.run(measured(given.kills, given.seed))
    for kind, times in found.items():
        times.sort()
        p99 = times[min(len(times) - 1, round(0.99 * (len(times) - 1)))]
        print(
            f"kill -9 -> first decision by the {kind}: p50 {statistics.median(times):.2f}, p99 {p99:.2f}, worst {times[-1]:.2f} s "
            f"of {len(times)} (limit {LIMITS[kind]:g}; {p99 / LIMITS[kind]:.2f} x)"
        )
    return int(any(times[-1] > LIMITS[kind] for kind, times in found.items()))


if __name__ == "__main__":
    sys.exit(main())
