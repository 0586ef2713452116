"""Daemon and broker are killed with -9 while messages flow: what was sent is in the journal, once each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from plugins import broker as brokers
from plugins.broker import Broker
from plugins.mqtt_actor import Actor
from plugins.mqtt_client import DurableClient
from tests.plugins.conftest import until

ROOT = Path(__file__).parents[2]


class Receiver:
    """The daemon's process, started again whenever it was killed."""

    def __init__(self, data: Path, broker: Broker) -> None:
        self._data, self._broker = data, broker
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.plugins.receiver", str(self._data), str(self._broker.config.port), cwd=ROOT
        )

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    def values(self) -> list[int]:
        """What the journal holds, in a read of its own; nothing while there is no journal yet."""
        path = self._data / "journal.db"
        if not path.exists():
            return []
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return [json.loads(payload) for (payload,) in connection.execute("SELECT payload FROM observation")]
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()


@asynccontextmanager
async def receiver(data: Path, broker: Broker) -> AsyncIterator[Receiver]:
    started = Receiver(data, broker)
    await started.start()
    try:
        yield started
    finally:
        await started.kill()


async def test_killing_daemon_and_broker_loses_and_doubles_nothing(broker: Broker, tmp_path: Path) -> None:
    house = Actor(broker.config.host, broker.config.port, producer="house", agent="test", topics=())
    async with receiver(tmp_path, broker) as daemon, house.connected():
        room = asyncio.Semaphore(16)  # messages under way at once

        async def send(number: int) -> None:
            async with room:
                await house.send(f"home/room/{number % 5}", number, id=f"m{number}")

        sending = asyncio.gather(*(send(number) for number in range(400)))
        await until(lambda: len(daemon.values()) > 40)
        await daemon.kill()
        await daemon.start()
        await until(lambda: len(daemon.values()) > 120)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await until(lambda: len(daemon.values()) > 200)
        await daemon.kill()
        await daemon.start()
        async with asyncio.timeout(90):
            await sending
        assert sorted(daemon.values()) == list(range(400))
    assert broker.restarts == 1


@pytest.mark.skipif(brokers.installed_mosquitto() is None, reason="mosquitto is not installed")
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
async def test_a_durable_broker_keeps_what_it_accepted_over_both_deaths(broker: Broker, tmp_path: Path) -> None:
    """A producer that knows nothing of us: QoS 1 once. mosquitto writes just after it acknowledges, so the very last
    message before its death may be lost: whoever cannot bear that sends again until the agent acknowledges."""
    async with receiver(tmp_path, broker) as daemon:
        async with DurableClient(broker.config, identifier="plain") as client:
            await client.subscribe_all(["corrigible/test/bridge/state"])
            online = await anext(client.messages)  # it has subscribed: from here on the broker keeps for it
            assert online.payload == b"online"
            await daemon.kill()
            for number in range(30):
                await client.publish("home/room/0", str(number), qos=1)
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await until(lambda: broker.restarts)
        await daemon.start()
        await until(lambda: set(range(29)) <= set(daemon.values()))
