"""Real brokers for the tests: the embedded one always, mosquitto where it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from plugins import broker as brokers
from runtime.config import BrokerConfig


def kinds() -> list[str]:
    found = brokers.installed_mosquitto()
    return ["embedded", "mosquitto"] if found else ["embedded"]


@pytest_asyncio.fixture(params=kinds())
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[brokers.Broker]:
    """A running, supervised broker on a free port."""
    started = await brokers.start(BrokerConfig(mode=request.param, port=0), tmp_path)
    keeper = asyncio.create_task(started.run())
    yield started
    keeper.cancel()
    with suppress(asyncio.CancelledError):
        await keeper
    await started.stop()


async def until(condition: Callable[[], object], limit: float = 30.0) -> None:
    """Wait for something that another task or process brings about."""
    async with asyncio.timeout(limit):
        for _ in iter(int, 1):
            if condition():
                return
            await asyncio.sleep(0.01)
