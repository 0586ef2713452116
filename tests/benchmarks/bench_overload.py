"""What comes in over MQTT: how fast it is durable, and what becomes of ten times as much as can be taken in.

    python -m tests.benchmarks.bench_overload [--events 30000] [--seconds 300] [--only ingest|overload]

The real daemon (its policy worker has no model: what is measured lies before the decision), mosquitto, a flood in a process of its
own. *ingest*: QoS 1, from the first to the last row in the journal, against the same rows written by SQLite alone, 64 a commit at
synchronous = FULL, on the same disk. *overload*: ten times that rate as telemetry beside 20 messages a second that may not be lost; a person's
feedback ten times a second all the while. Offered must be what is in the journal and what was let go, to the message.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from plugins import broker as brokers
from plugins import broker_files
from runtime.config import BrokerConfig
from runtime.journal import Journal
from runtime.journal.rows import row
from runtime.messages import Observation
from tests.chaos import nemesis

TOGETHER = 64  # rows a commit, of raw SQLite
TIMES = 10
SURE = 20  # messages a second that may not be lost
ASKED = 0.1  # seconds between two words of a person
SAYS = 15.0  # seconds within which mosquitto publishes what has changed
PATIENCE = 300.0  # seconds for what is under way to end
V5 = aiomqtt.ProtocolVersion.V5

CONFIG = """
[agent]
name = "load"
data = "{data}"
timezone = "UTC"
[log]
format = "json"
[http]
port = 0
[broker]
mode = "configured"
host = "127.0.0.1"
port = {port}
[policy]
memory = false
ask = "never"
[learner]
enabled = false
drift = false
[journal]
backup_every = 0
[[plugin]]
use = "plugins.mqtt:Mqtt"
sensors = ["{sensors}"]
telemetry = [{telemetry}]
[[plugin.actuators]]
name = "lamp"
scope = "hall"
topic = "act/lamp/set"
values = ["off", "on"]
"""


@dataclass
class Daemon:
    process: asyncio.subprocess.Process
    journal: Path

    def ask(self, sql: str) -> int:
        with sqlite3.connect(f"file:{self.journal}?mode=ro", uri=True, timeout=30) as shell:
            return int(shell.execute(sql).fetchone()[0] or 0)

    @property
    def resident(self) -> float:
        """MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    async def until(self, sql: str, count: int) -> None:
        """Looks seldom: a look is work on the same disk."""
        end = time.monotonic() + PATIENCE
        while (found := self.ask(sql)) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{found} of {count}: {sql}")
            await asyncio.sleep(0.2)


@asynccontextmanager
async def running(folder: Path, sensors: str, telemetry: str) -> AsyncIterator[tuple[Daemon, int]]:
    """The daemon beside a mosquitto; both end with the block."""
    (folder / "broker").mkdir(exist_ok=True)
    broker = await brokers.start(BrokerConfig(mode="mosquitto", port=0), folder / "broker")
    keeper = asyncio.create_task(broker.run())
    config = folder / "config.toml"
    config.write_text(
        CONFIG.format(data=folder / "data", port=broker.config.port, sensors=sensors, telemetry=telemetry)
    )
    with (folder / "daemon.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.daemon", "run", "--config", str(config), stdout=log, stderr=log
        )
    try:
        log_file = folder / "daemon.log"
        if not await nemesis.until(lambda: b'"lane": "sensors"' in log_file.read_bytes(), PATIENCE):
            raise TimeoutError(log_file.read_text())
        yield Daemon(process, folder / "data" / "journal.db"), broker.config.port
    finally:
        process.terminate()
        await process.wait()
        keeper.cancel()
        await broker.stop()


async def flood(port: int, qos: int, rate: float, count: int) -> int:
    """How many messages the broker was given."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.flood", str(port), str(qos), str(rate), str(count),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, _ = await process.communicate()
    return int(json.loads(said)["sent"])


@contextmanager
def seldom_saved() -> Iterator[None]:
    """The broker saves its queues every half hour, as installed ones do, and not at every change, as the one we start does."""
    ours = broker_files.mosquitto_config
    often = "autosave_on_changes true\nautosave_interval 1\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(brokers, "mosquitto_config", lambda *given: ours(*given).replace(often, ""))
        yield


async def ingest(folder: Path, events: int) -> float:
    """Events a second, from the first to the last in the journal."""
    rows = "SELECT max(seq) FROM observation"  # there are no others
    async with running(folder, "load/#", "") as (daemon, port):
        flooding = asyncio.create_task(flood(port, 1, 0, events))
        await daemon.until(rows, 1)
        began, before = time.monotonic(), daemon.ask(rows)
        await daemon.until(rows, events)
        rate = (events - before) / (time.monotonic() - began)
        await flooding
    return rate


async def raw(folder: Path, events: int) -> float:
    """The same rows by SQLite alone, in commits of TOGETHER."""
    async with Journal.open(folder / "raw.db"):
        pass  # the schema and its indices
    statements = [
        row(Observation(id=f"o{i}", topic=f"load/room/s{i % 100}", payload=str(i).encode(), at=1e9 + i, source="mqtt"))
        for i in range(events)
    ]
    shell = sqlite3.connect(folder / "raw.db", isolation_level=None)
    shell.execute("PRAGMA synchronous = FULL")
    began = time.monotonic()
    for start in range(0, events, TOGETHER):
        shell.execute("BEGIN IMMEDIATE")
        for sql, values in statements[start : start + TOGETHER]:
            shell.execute(sql, values)
        shell.execute("COMMIT")
    return events / (time.monotonic() - began)


@dataclass
class Person:
    """Rates one decision again and again, and notes how long each answer takes; and before it, how long the broker alone."""

    seconds: list[float] = field(default_factory=list)
    broker: list[float] = field(default_factory=list)

    async def speak(self, port: int, decision: str, ended: asyncio.Event) -> None:
        undelayed = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        async with aiomqtt.Client("127.0.0.1", port, protocol=V5, socket_options=undelayed) as client:
            await client.subscribe("answers/person", qos=1)
            number = 0
            while not ended.is_set():
                properties = Properties(PacketTypes.PUBLISH)
                properties.ResponseTopic = "answers/person"
                properties.UserProperty = [("id", f"say-{number}")]
                body = json.dumps({"decision": decision, "rating": 1})
                began = time.monotonic()
                await client.publish("answers/person", b"", qos=1)
                await anext(client.messages)
                self.broker.append(time.monotonic() - began)
                began = time.monotonic()
                await client.publish("corrigible/load/feedback", body, qos=1, properties=properties)
                answer = json.loads((await anext(client.messages)).payload)
                self.seconds.append(time.monotonic() - began)
                assert answer["status"] == "ok", answer
                number += 1
                await asyncio.sleep(ASKED)


async def sure(port: int, ended: asyncio.Event) -> int:
    """What may not be lost: how many messages of it were sent."""
    sent = 0
    async with aiomqtt.Client("127.0.0.1", port, protocol=V5) as client:
        while not ended.is_set():
            await client.publish("sure/room/event", str(sent), qos=1)
            sent += 1
            await asyncio.sleep(1 / SURE)
    return sent


async def a_decision(port: int) -> str:
    async with aiomqtt.Client("127.0.0.1", port, protocol=V5) as client:
        await client.subscribe("corrigible/load/decision/#", qos=1)
        await client.publish("sure/hall/speech", json.dumps({"says": "switch the lamp on", "who": "ann"}), qos=1)
        return str(json.loads((await anext(client.messages)).payload)["id"])


async def compared(name: str, events: int) -> float:
    with tempfile.TemporaryDirectory(prefix="corrigible-load-") as folder:
        rate = await ingest(Path(folder), events)
        limit = await raw(Path(folder), events)
    print(f"{name}: {rate:,.0f} events/s durable over MQTT, {rate / limit:.3f} × raw SQLite ({limit:,.0f})", flush=True)
    return rate


async def overload(folder: Path, rate: float, seconds: float) -> None:
    async with running(folder, "sure/#", '"load/#"') as (daemon, port):
        decision = await a_decision(port)
        ended, person = asyncio.Event(), Person()
        quiet = asyncio.create_task(person.speak(port, decision, ended))
        await asyncio.sleep(min(10.0, seconds))
        alone, person.seconds, person.broker = person.seconds, [], []
        before = most = daemon.resident
        sending = asyncio.create_task(sure(port, ended))
        flooding = asyncio.create_task(flood(port, 0, TIMES * rate, round(TIMES * rate * seconds)))
        while not flooding.done():
            most = max(most, daemon.resident)
            await asyncio.wait((flooding,), timeout=1.0)
        ended.set()
        offered, kept = await flooding, await sending
        await quiet
        taken = "SELECT count(*) FROM observation WHERE topic LIKE 'load/%'"
        let_go = "SELECT sum(count) FROM shed"
        dropped = await broker_dropped(port)
        async with asyncio.timeout(PATIENCE):
            while daemon.ask(taken) + daemon.ask(let_go) + dropped < offered:
                most = max(most, daemon.resident)
                await asyncio.sleep(0.5)
                dropped = await broker_dropped(port)  # it counts late
        await daemon.until("SELECT count(*) FROM observation WHERE topic = 'sure/room/event'", kept)
        here, gone = daemon.ask(taken), daemon.ask(let_go)
        safe = daemon.ask("SELECT count(*) FROM observation WHERE topic = 'sure/room/event'")
        words = daemon.ask("SELECT count(*) FROM feedback")
    print(
        f"overload: offered {offered:,} in {seconds:.0f} s = taken in {here:,} + let go {gone:,} + dropped by the broker {dropped:,}"
        f" + unaccounted {offered - here - gone - dropped:,}; of what may not be lost {safe:,} of {kept:,}; words of a person {words:,}"
    )
    print(f"resident {before:.0f} MiB before, {most:.0f} at most (+{most - before:.0f}; limit +256)")
    print(
        f"a person's answer: p50 {1000 * statistics.median(person.seconds):.0f} ms, p99 {p99(person.seconds):.0f} ms (limit 250);"
        f" the broker's part, one message to itself: p50 {1000 * statistics.median(person.broker):.0f}, p99 {p99(person.broker):.0f};"
        f" without the flood p50 {1000 * statistics.median(alone):.0f}, p99 {p99(alone):.0f}"
    )


async def broker_dropped(port: int) -> int:
    """What mosquitto says that it could not deliver; it says nothing as long as that is nothing."""
    async with aiomqtt.Client("127.0.0.1", port, protocol=V5) as client:
        await client.subscribe("$SYS/broker/publish/messages/dropped")
        with suppress(TimeoutError):
            async with asyncio.timeout(SAYS):
                return int((await anext(client.messages)).payload)
        return 0


def p99(seconds: list[float]) -> float:
    """Milliseconds."""
    return 1000 * sorted(seconds)[round(0.99 * (len(seconds) - 1))]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--rate", type=float, default=0.0, help="of the overload's tenth; default: what ingest measured"
    )
    parser.add_argument("--only", choices=("ingest", "overload"))
    given = parser.parse_args()
    rates = [given.rate] if given.rate else []
    if given.only != "overload" or not rates:
        for number in range(given.runs):
            rates.append(await compared(f"ingest {number}", given.events))
            with seldom_saved():
                await compared(f"ingest {number}, the broker saves seldom", given.events)
    if given.only != "ingest":
        with tempfile.TemporaryDirectory(prefix="corrigible-load-") as folder:
            await overload(Path(folder), statistics.median(rates), given.seconds)


if __name__ == "__main__":
    asyncio.run(main())
