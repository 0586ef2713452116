"""The brokers we start: they answer, ask for the password, come back after kill -9 and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import aiomqtt
import pytest
from pydantic import SecretStr

from plugins import broker as brokers
from plugins.broker_files import embedded_config
from plugins.mqtt_client import DurableClient
from runtime.config import BrokerConfig
from runtime.errors import BadConfig, Unavailable
from tests.plugins.conftest import kinds, until


def processes() -> str:
    return subprocess.run(["ps", "-ww", "-e", "-o", "args="], capture_output=True, text=True, check=True).stdout


async def test_a_message_goes_round(broker: brokers.Broker) -> None:
    async with DurableClient(broker.config, identifier="a") as client:
        await client.subscribe_all(["t/#"])
        await client.publish("t/x", b"1" * 1_200_000, qos=1)
        message = await anext(client.messages)
        assert len(bytes(message.payload)) == 1_200_000
        client.ack(message)


async def test_it_comes_back_after_kill_9(broker: brokers.Broker) -> None:
    first = broker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: broker.restarts)
    assert broker.healthy
    assert broker.pid != first
    async with DurableClient(broker.config, identifier="a") as client:
        await client.publish("t", b"", qos=1)


@pytest.mark.parametrize("kind", kinds())
async def test_the_password_is_asked_for(kind: str, tmp_path: Path) -> None:
    config = BrokerConfig(mode=kind, port=0, username="me", password=SecretStr('a"b\\c'))
    broker = await brokers.start(config, tmp_path)
    try:
        async with DurableClient(broker.config, identifier="a") as client:
            await client.publish("t", b"", qos=1)
        wrong = broker.config.model_copy(update={"password": SecretStr("wrong")})
        with pytest.raises(aiomqtt.MqttError):
            async with DurableClient(wrong, identifier="b", timeout=1.0):
                pass
        secret = [path for path in (tmp_path / "broker").iterdir() if 'a\\"b' in path.read_text(errors="replace")]
        assert all(path.stat().st_mode & 0o077 == 0 for path in secret)
    finally:
        await broker.stop()


@pytest.mark.parametrize("kind", kinds())
async def test_a_taken_port_is_one_clear_sentence(kind: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"port {port}: .*set another \[broker\] port"):
            await brokers.start(BrokerConfig(mode=kind, port=port), tmp_path)


async def test_the_first_run_goes_past_a_broker_that_is_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        broker = await brokers.start(BrokerConfig(mode="auto", port=port), tmp_path)
        try:
            assert broker.healthy
            assert broker.config.port != port
        finally:
            await broker.stop()


@pytest.mark.parametrize("kind", kinds())
async def test_a_broker_left_behind_by_a_killed_daemon_is_replaced(kind: str, tmp_path: Path) -> None:
    first = await brokers.start(BrokerConfig(mode=kind, port=0), tmp_path)
    try:
        second = await brokers.start(first.config, tmp_path)  # nobody stopped the first one
        assert second.pid != first.pid
        assert second.healthy
        await second.stop()
    finally:
        await first.stop()
    assert str(tmp_path) not in processes()


async def test_your_own_broker_is_used_and_left_alone(broker: brokers.Broker, tmp_path: Path) -> None:
    mine = await brokers.start(BrokerConfig(host="127.0.0.1", port=broker.config.port), tmp_path / "other")
    assert (mine.kind, mine.pid, mine.healthy) == ("configured", None, True)
    await mine.stop()
    assert broker.healthy
    nobody = await brokers.start(BrokerConfig(host="127.0.0.1", port=1), tmp_path / "other")
    assert not nobody.healthy


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "installed_mosquitto", lambda: None)
    assert brokers.choose(BrokerConfig()) == "embedded"
    assert brokers.choose(BrokerConfig(host="h")) == "configured"
    assert brokers.choose(BrokerConfig(host="h", mode="embedded")) == "embedded"
    with pytest.raises(BadConfig, match="needs a host"):
        brokers.choose(BrokerConfig(mode="configured"))
    with pytest.raises(Unavailable, match="no mosquitto is on PATH"):
        brokers.choose(BrokerConfig(mode="mosquitto"))
    monkeypatch.setattr(brokers, "installed_mosquitto", lambda: "/bin/mosquitto")
    assert brokers.choose(BrokerConfig()) == "mosquitto"


def test_the_embedded_broker_listens_on_loopback_only() -> None:
    assert 'listen = "127.0.0.1:7"' in embedded_config(BrokerConfig(port=7))
