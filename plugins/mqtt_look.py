"""A look at the broker, once after the first connection, on a connection of its own: what it says of itself, and what it may lose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiomqtt
import structlog

from plugins import broker_check
from plugins.broker_check import Greeting
from plugins.mqtt_client import DurableClient
from runtime.config import BrokerConfig

VERSION = "$SYS/broker/version"  # mosquitto says it, others may not
PATIENCE = 2.0  # seconds to wait for it

log = structlog.get_logger("plugins.mqtt")


async def look(
    client: DurableClient, config: BrokerConfig, identifier: str, data: Path, notice: Callable[[str, str], object]
) -> None:
    """Tells a notice `broker` a finding. `client` is connected; `identifier` is for a connection of our own, without a session.
    Raises nothing: without an answer there is nothing to say."""
    found = await asyncio.to_thread(broker_check.findings, greeting(client), config, data)
    log.info("broker checked", version=await version(config, identifier) or "unknown", findings=len(found))
    for text in found:
        notice("broker", text)


async def version(config: BrokerConfig, identifier: str) -> str:
    """What it calls itself; empty if it does not say."""
    with suppress(aiomqtt.MqttError, TimeoutError):
        async with DurableClient(config.model_copy(update={"session_expiry": 0}), identifier=identifier) as client:
            async with asyncio.timeout(PATIENCE):
                await client.subscribe_all([VERSION], qos=0)
                payload = (await anext(client.messages)).payload
                return payload.decode(errors="replace") if isinstance(payload, bytes) else ""
    return ""


def greeting(client: DurableClient) -> Greeting:
    """What the CONNACK says."""

    def number(name: str) -> int | None:
        value = getattr(client.greeting, name, None)
        return value if isinstance(value, int) else None

    return Greeting(
        session_expiry=number("SessionExpiryInterval"),
        maximum_qos=number("MaximumQoS"),
        packet_size=number("MaximumPacketSize"),
        retain=number("RetainAvailable") != 0,
    )
