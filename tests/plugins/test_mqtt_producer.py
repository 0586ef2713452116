"""A producer with a file: killed with -9 again and again, with the agent and the broker beside it, it loses and doubles nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugins import mqtt_actor
from plugins.broker import Broker
from plugins.mqtt_producer import AT_ONCE, Producer
from plugins.mqtt_store import Store
from runtime.errors import BadConfig, BadInput
from tests.plugins.conftest import until
from tests.plugins.test_mqtt_faults import ROOT, receiver

RUNS, COUNT = 4, 60


def _producer(port: int, store: Path, **more: Any) -> Producer:
    return Producer("127.0.0.1", port, name="house", agent="test", store=store, **more)


@asynccontextmanager
async def _victim(port: int, store: Path, run: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.plugins.producer", str(port), str(store), str(run), str(COUNT),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _said(process: asyncio.subprocess.Process, lines: int) -> list[list[int]]:
    """So many lines of what it has stored, or all."""
    assert process.stdout is not None
    found: list[list[int]] = []
    while len(found) < lines and (line := await process.stdout.readline()):
        found.append([int(word) for word in line.split()])
    return found


def _heard(data: Path) -> list[tuple[str, str]]:
    """(payload, id) of what the journal has, by a read of its own."""
    connection = sqlite3.connect(f"file:{data / 'journal.db'}?mode=ro", uri=True)
    try:
        return list(connection.execute("SELECT CAST(payload AS TEXT), id FROM observation ORDER BY seq"))
    finally:
        connection.close()


async def test_a_killed_producer_loses_and_doubles_nothing(broker: Broker, tmp_path: Path) -> None:
    store, stored, port = tmp_path / "house.db", list[list[int]](), broker.config.port
    async with receiver(tmp_path, broker) as daemon:
        for run in range(RUNS - 1):
            async with _victim(port, store, run) as process:
                stored += await _said(process, 20 + 7 * run)
                process.kill()
                stored += await _said(process, COUNT)  # what it said before it died
            if run == 1:
                assert broker.pid is not None
                await daemon.kill()
                await daemon.start()
                os.kill(broker.pid, signal.SIGKILL)
        async with _victim(port, store, RUNS - 1) as process:
            stored += await _said(process, COUNT)
            assert await process.wait() == 0  # it has delivered everything
        found = [payload for payload, _ in _heard(tmp_path)]
    assert len(found) == len(set(found))
    assert {str(place).replace(" ", "") for place in stored} <= set(found)
    left = Store(store)
    assert left.waiting() == []
    assert left.add("t", b"", numbered=True).seq == len(found) + 1  # no number was left out
    left.close()


async def test_it_is_posted_without_a_broker_and_delivered_by_the_next_run(broker: Broker, tmp_path: Path) -> None:
    store = tmp_path / "house.db"
    async with _producer(1, store) as producer:  # nobody listens there
        identity = await producer.post("home/room/light", {"value": 3})
    async with receiver(tmp_path, broker), _producer(broker.config.port, store) as producer:
        async with asyncio.timeout(30):
            await producer.delivered()
        ((payload, id),) = _heard(tmp_path)
    assert (payload, id) == ('{"value":3}', f"home/room/light:{identity}")


async def test_feedback_is_acknowledged_and_leaves_no_hole_in_the_numbers(broker: Broker, tmp_path: Path) -> None:
    async with receiver(tmp_path, broker), _producer(broker.config.port, tmp_path / "house.db") as producer:
        async with asyncio.timeout(30):
            first = await producer.post("home/room/light", 1)
            said = await producer.post("corrigible/test/feedback", {"decision": "dc-none", "accept": True})
            last = await producer.post("home/room/light", 2)
            await producer.delivered()
    assert [identity.rpartition("/")[2] for identity in (first, said, last)] == ["1", "said-2", "2"]


async def test_what_can_never_be_sent_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="a/b"):
        Producer("h", 1, name="a/b", agent="test", store=tmp_path / "x.db")
    async with _producer(1, tmp_path / "house.db", limit=1) as producer:
        for topic, payload in (
            ("home/+/light", 1), ("", 1), ("home/room/light", b"x" * 70_000), ("a\0", 1), ("a\n", 1), ("\ud800", 1), ("é" * 32_768, 1),
        ):  # fmt: skip
            with pytest.raises(BadInput, match=r"topic|bytes"):
                await producer.post(topic, payload)
        await producer.post("home/room/light", 1)
        with pytest.raises(BadInput, match="1 messages wait"):
            await producer.post("home/room/light", 2)


async def test_topics_that_nobody_acknowledges_hold_up_no_other(broker: Broker, tmp_path: Path) -> None:
    async with receiver(tmp_path, broker) as daemon, _producer(broker.config.port, tmp_path / "house.db") as producer:
        for number in range(2 * AT_ONCE):
            await producer.post("nobody/hears", number)
        await producer.post("home/room/light", -1)
        await until(lambda: daemon.values() == [-1])


async def test_what_is_stored_and_cannot_be_sent_holds_up_nothing(broker: Broker, tmp_path: Path) -> None:
    """As an older version of this file may have stored it."""
    path = tmp_path / "house.db"
    store = Store(path)
    bad = [store.add(topic, b"", numbered=False) for topic in ["x" * 70_000, "a/+", "a\0"] * AT_ONCE]
    store.close()
    async with receiver(tmp_path, broker), _producer(broker.config.port, path) as producer, asyncio.timeout(30):
        await producer.post("home/room/light", 1)
        await producer.delivered()
        assert [payload for payload, _ in _heard(tmp_path)] == ["1"]
    store = Store(path)
    assert store.waiting() == bad  # nothing is thrown away
    store.close()


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), MemoryError()])
async def test_a_file_that_does_not_forget_keeps_nobody_waiting(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def forget(places: object) -> None:
        raise error

    async with receiver(tmp_path, broker), _producer(broker.config.port, tmp_path / "house.db") as producer:
        monkeypatch.setattr(producer._store, "forget", forget)
        async with asyncio.timeout(30):
            for number in range(2):  # after the first there is somebody for the second
                await producer.post("home/room/light", number)
                await producer.delivered()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_actor, "RESEND", 0.2)
    monkeypatch.setattr(mqtt_actor, "BACKOFF", (0.02, 0.1))
