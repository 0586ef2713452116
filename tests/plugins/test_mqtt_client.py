"""The connection's own promises: refusals and losses are raised, unfinished connections are closed, bad TLS files named."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiomqtt
import pytest

from plugins.broker import Broker
from plugins.mqtt_client import DurableClient
from runtime.config import BrokerConfig
from runtime.errors import BadConfig


async def test_a_publish_on_a_dying_connection_raises_and_does_not_hang(broker: Broker) -> None:
    async with DurableClient(broker.config, identifier="a", timeout=60.0) as client:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)  # so that it cannot answer first
        publishing = asyncio.create_task(client.publish("t", b"1", qos=1))
        await asyncio.sleep(0)
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(aiomqtt.MqttError, match="lost"):
            await asyncio.wait_for(publishing, 20)


async def test_the_session_is_still_there(broker: Broker) -> None:
    async with DurableClient(broker.config, identifier="a") as client:
        assert not client.session_present
        await client.subscribe_all(["t"])
    async with DurableClient(broker.config, identifier="b") as other:
        await other.publish("t", b"meanwhile", qos=1)
    async with DurableClient(broker.config, identifier="a") as client:
        assert client.session_present
        message = await anext(client.messages)
        assert message.payload == b"meanwhile"
        client.ack(message)


async def test_a_broker_that_never_greets_is_left_again() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(aiomqtt.MqttError):
            async with DurableClient(BrokerConfig(host="127.0.0.1", port=port), identifier="a", timeout=0.2):
                pass
        async with asyncio.timeout(20):
            await gone.wait()


async def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    nothing = tmp_path / "empty.pem"
    nothing.write_text("")
    for keys in ({"ca_file": str(nothing)}, {"ca_file": "/no/such.pem"}, {"cert_file": str(nothing)}):
        with pytest.raises(BadConfig, match=r"\[broker\] (ca_file|cert_file)"):
            DurableClient(BrokerConfig(host="h", tls=True, **keys), identifier="a")
