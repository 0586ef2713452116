"""What is said to producers comes in letters that every broker takes, and what none takes holds up nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from plugins import broker as brokers
from plugins.mqtt_client import DurableClient
from plugins.mqtt_outbox import WAITING, WAITING_OF_ALL, Outbox
from runtime.config import BrokerConfig
from tests.plugins.conftest import kinds
from tests.plugins.test_mqtt_client import connected, free_port

LIMIT = 20_480  # bytes that the broker takes
pytestmark = pytest.mark.skipif("mosquitto" not in kinds(), reason="mosquitto is not installed")


async def test_ids_come_in_letters_that_the_broker_takes(tmp_path: Path) -> None:
    outbox, told = Outbox(), [[f"p/{kind}/{number}" for number in range(WAITING)] for kind in ("b", "\x01" * 200)]
    for topic, ids in zip(("ack/p", "ack/q"), told, strict=True):
        for identity in (*ids, *ids, "one too many"):
            outbox.acknowledge(topic, identity)
    async with _narrow(tmp_path) as config:
        letters = await _said(outbox, config, sum(map(len, told)))
    assert sorted(i for letter in letters for i in letter) == sorted(told[0] + told[1])
    assert max(map(len, letters)) <= 256


async def test_ids_of_all_producers_are_bounded_together(tmp_path: Path) -> None:
    outbox, ids = Outbox(), [str(number) for number in range(WAITING)]
    for producer in range(WAITING_OF_ALL // WAITING + 2):
        for identity in ids:
            outbox.acknowledge(f"ack/p{producer}", identity)
    async with _narrow(tmp_path) as config:
        letters = await _said(outbox, config, WAITING_OF_ALL)
        assert sum(map(len, letters)) == WAITING_OF_ALL
        outbox.acknowledge("ack/p", "next")  # there is room again
        assert await _said(outbox, config, 1) == [["next"]]


async def test_a_letter_that_is_too_large_holds_up_no_other(tmp_path: Path) -> None:
    outbox = Outbox()
    outbox.put("ack/p", {"ids": ["x" * LIMIT]})
    outbox.acknowledge("ack/p", "small")
    async with _narrow(tmp_path) as config:
        assert await _said(outbox, config, 1) == [["small"]]


async def _said(outbox: Outbox, config: BrokerConfig, ids: int) -> list[list[str]]:
    """The letters on one connection, until there are so many ids."""
    letters = list[list[str]]()
    async with (
        asyncio.timeout(30),
        DurableClient(config, identifier="producer") as producer,
        DurableClient(config, identifier="agent") as agent,
    ):
        await producer.subscribe_all(["ack/#"])
        sending = asyncio.create_task(outbox.run(agent))
        while sum(map(len, letters)) < ids:
            heard = asyncio.ensure_future(anext(producer.messages))
            await asyncio.wait((heard, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                heard.cancel()
                await sending  # says why
            message = heard.result()
            producer.ack(message)
            letters.append(msgspec.json.decode(bytes(message.payload), type=dict[str, list[str]])["ids"])
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
    return letters


@asynccontextmanager
async def _narrow(folder: Path) -> AsyncIterator[BrokerConfig]:
    """A mosquitto that cuts the connection at a packet over LIMIT bytes."""
    config = BrokerConfig(mode="configured", host="127.0.0.1", port=free_port())
    settings = folder / "narrow.conf"
    settings.write_text(
        ("user root\n" if os.geteuid() == 0 else "")
        + f"listener {config.port} 127.0.0.1\nallow_anonymous true\nmax_packet_size {LIMIT}\n"
    )
    process = await asyncio.create_subprocess_exec(
        str(brokers.installed_mosquitto()), "-c", str(settings), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await (await connected(config)).__aexit__(None, None, None)
        yield config
    finally:
        process.terminate()
        await process.wait()
