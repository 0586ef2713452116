"""The connection's own promises: refusals and losses are raised, unfinished connections are closed, bad TLS files named."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest
from paho.mqtt.enums import MQTTErrorCode

from plugins import broker as brokers
from plugins import mqtt_client
from plugins.broker import Broker
from plugins.mqtt_client import DurableClient
from plugins.mqtt_producer import Producer
from runtime.config import BrokerConfig
from runtime.errors import BadConfig
from tests.plugins.conftest import until


async def test_a_publish_on_a_dying_connection_raises_and_does_not_hang(broker: Broker) -> None:
    async with DurableClient(broker.config, identifier="a", timeout=60.0) as client:
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGSTOP)  # so that it cannot answer first
        publishing = asyncio.create_task(client.publish("t", b"1", qos=1))
        await asyncio.sleep(0)
        os.kill(broker.pid, signal.SIGKILL)
        with pytest.raises(aiomqtt.MqttError, match="lost"):
            await asyncio.wait_for(publishing, 20)


async def test_a_task_that_is_cancelled_while_the_answer_comes_ends(broker: Broker) -> None:
    """`asyncio.wait_for` up to Python 3.11 returned the answer and forgot that the task was to end."""
    async with DurableClient(broker.config, identifier="a") as client:
        answer = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(client._wait_for(answer, timeout=5))
        await asyncio.sleep(0)
        answer.set_result(None)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_socket_that_was_closed_before_it_could_be_written_to_is_left_alone(broker: Broker) -> None:
    errors: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    async with DurableClient(broker.config, identifier="a", timeout=60.0) as client:
        publishing = asyncio.create_task(client.publish("t", b"1", qos=1))
        # between the publish and the turn of the loop in which it would be written
        loop.call_soon(client._client._loop_rc_handle, MQTTErrorCode.MQTT_ERR_CONN_LOST)
        with pytest.raises(aiomqtt.MqttError):
            await asyncio.wait_for(publishing, 20)
    assert not errors


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


async def test_no_more_is_read_than_can_wait_and_nothing_of_it_is_lost(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_client, "READ_AHEAD", 10)
    async with (
        DurableClient(broker.config, identifier="a") as client,
        DurableClient(broker.config, identifier="b") as other,
    ):
        await client.subscribe_all(["t"], qos=0)
        for number in range(200):
            await other.publish("t", str(number))
        await until(lambda: len(client.messages) == 10)
        await other.publish("elsewhere", b"", qos=1)  # a round trip: there was time to read more
        assert len(client.messages) == 10
        async with asyncio.timeout(20):
            received = client.received()
            assert [int((await anext(received)).payload) for _ in range(200)] == list(range(200))


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


@asynccontextmanager
async def tls_broker(folder: Path) -> AsyncIterator[BrokerConfig]:
    """A mosquitto with a certificate that no public authority has signed."""
    certificate, key = folder / "broker.crt", folder / "broker.key"
    making = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await making.wait() == 0
    config = BrokerConfig(host="127.0.0.1", port=free_port(), tls=True, ca_file=str(certificate))
    settings = folder / "tls.conf"
    settings.write_text(
        f"user root\nlistener {config.port} 127.0.0.1\nallow_anonymous true\ncertfile {certificate}\nkeyfile {key}\n"
    )
    process = await asyncio.create_subprocess_exec(
        str(brokers.installed_mosquitto()), "-c", str(settings), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield config
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(
    not (shutil.which("openssl") and brokers.installed_mosquitto()), reason="needs openssl and mosquitto"
)
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho leaves a refused TLS socket to the collector
async def test_tls_with_an_authority_of_your_own(tmp_path: Path) -> None:
    async with tls_broker(tmp_path) as config, asyncio.timeout(20):
        client = await connected(config)
        await client.subscribe_all(["t"])
        trusted = ssl.create_default_context(cafile=config.ca_file)
        store = tmp_path / "house.db"
        async with Producer(config.host, config.port, name="house", agent="x", store=store, tls=trusted) as producer:
            await producer.post("t", 21.5)
            message = await anext(client.messages)
            assert message.payload == b"21.5"
        await client.__aexit__(None, None, None)
        with pytest.raises(aiomqtt.MqttError, match="certificate"):
            await DurableClient(config.model_copy(update={"ca_file": ""}), identifier="b").__aenter__()


async def connected(config: BrokerConfig) -> DurableClient:
    """A connection as soon as the broker listens."""
    for _ in iter(int, 1):
        try:
            return await DurableClient(config, identifier="a").__aenter__()
        except aiomqtt.MqttError:
            await asyncio.sleep(0.05)
    raise AssertionError


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    nothing = tmp_path / "empty.pem"
    nothing.write_text("")
    for keys in ({"ca_file": str(nothing)}, {"ca_file": "/no/such.pem"}, {"cert_file": str(nothing)}):
        with pytest.raises(BadConfig, match=r"\[broker\] (ca_file|cert_file)"):
            DurableClient(BrokerConfig(host="h", tls=True, **keys), identifier="a")
