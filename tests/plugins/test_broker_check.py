"""What a broker will lose is said in one sentence a finding, with the line that mends it; a durable one hears nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from plugins import broker as brokers
from plugins import broker_check, mqtt_look
from plugins.broker import Broker
from plugins.broker_check import PACKET, Greeting, of_greeting, of_settings, settings_file
from plugins.broker_files import mosquitto_config
from runtime.config import BrokerConfig
from tests.plugins.conftest import kinds, until
from tests.plugins.test_mqtt import made, opened, running
from tests.plugins.test_mqtt_client import connected, free_port

DURABLE = {
    "persistence": "true", "autosave_on_changes": "true", "autosave_interval": "1", "max_queued_messages": "0"
}  # fmt: skip
SQLITE = {"persistence": "false", "plugin": "/usr/lib/mosquitto_persist_sqlite.so"}
mosquitto_only = pytest.mark.skipif("mosquitto" not in kinds(), reason="mosquitto is not installed")


@pytest.mark.parametrize(
    ("changed", "says", "mends"),
    [
        ({"persistence": "false"}, "memory only", "persistence true"),
        ({"persistence": ""}, "memory only", "persistence true"),
        (
            {"autosave_on_changes": "false", "autosave_interval": "1800"},
            "up to 30 min of messages",
            "autosave_interval 1",
        ),
        ({"autosave_interval": ""}, "up to 1800 messages", "autosave_interval 1"),
        ({"autosave_interval": "0"}, "lose all messages", "autosave_interval 1"),
        ({"max_queued_messages": ""}, "1000 messages at most", "max_queued_messages 0"),
        ({"max_queued_messages": "50"}, "50 messages at most", "max_queued_messages 0"),
        ({"message_size_limit": "1000"}, "over 1000 bytes", f"message_size_limit {PACKET}"),
        (SQLITE, "what its disk had not got", "plugin_opt_flush_period 1"),
        (
            SQLITE | {"plugin_opt_sync": "normal", "plugin_opt_flush_period": "1"},
            "its disk",
            "plugin_opt_flush_period 1",
        ),
        (
            SQLITE | {"plugin_opt_sync": "full", "plugin_opt_flush_period": "60"},
            "up to 60 s of messages",
            "plugin_opt_flush_period 1",
        ),
        ({"max_packet_size": "2000"}, "over 2000 bytes", f"max_packet_size {PACKET}"),
    ],
)
def test_each_setting_has_its_sentence(changed: dict[str, str], says: str, mends: str) -> None:
    (text,) = of_settings(DURABLE | changed, "/x/m.conf")
    assert says in text
    assert text.endswith(mends)
    assert "write in /x/m.conf: " in text


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"autosave_on_changes": "false"},  # every second
        {"message_size_limit": "0", "max_packet_size": str(PACKET)},
        SQLITE | {"plugin_opt_sync": "full"},
        SQLITE | {"plugin_opt_sync": "Extra", "plugin_opt_flush_period": "1"},
    ],
)
def test_a_durable_one_hears_nothing(changed: dict[str, str]) -> None:
    assert list(of_settings(DURABLE | changed, "m.conf")) == []


@pytest.mark.parametrize(
    ("greeting", "says"),
    [
        (Greeting(session_expiry=60), "for 60 s, not 604800 s"),
        (Greeting(maximum_qos=0), "QoS 0 only"),
        (Greeting(packet_size=5000), "no packet over 5000 bytes"),
        (Greeting(retain=False), "no retained messages"),
    ],
)
def test_what_the_greeting_limits_is_said(greeting: Greeting, says: str) -> None:
    (text,) = of_greeting(greeting, BrokerConfig())
    assert says in text


def test_a_greeting_without_limits_is_none() -> None:
    for greeting in (Greeting(), Greeting(session_expiry=700_000, maximum_qos=1, packet_size=PACKET)):
        assert list(of_greeting(greeting, BrokerConfig())) == []


def test_the_file_is_found_where_it_belongs_to_the_broker(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    path, part = tmp_path / "mosquitto.conf", tmp_path / "conf.d" / "own.conf"
    path.write_text(f"# a comment\npersistence true\ninclude_dir {tmp_path}/conf.d\n")
    part.write_text(f"listener 1884 0.0.0.0\nautosave_interval\t7\ninclude_dir {tmp_path}/conf.d\n")
    assert broker_check.read(path)["autosave_interval"] == "7"

    def found(**more: object) -> Path | None:
        return settings_file(BrokerConfig.model_validate(more), tmp_path, (tmp_path / "none.conf", path))

    assert found(host="127.0.0.1", port=1884) == path
    assert found(host="localhost", port=1883) is None  # somebody else's
    assert found(host="192.0.2.1", port=1884) is None  # another machine's
    assert found(host="192.0.2.1", settings_file="/mnt/m.conf") == Path("/mnt/m.conf")
    part.write_text("listener\nlistener 18x4\nport \n")
    assert found(host="::1", port=1883) == path


@pytest.mark.parametrize("key", ["plugin", "global_plugin"])
def test_its_sqlite_plugin_is_found_among_others(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mosquitto.conf"
    path.write_text(
        f"{key} /x/mosquitto_persist_sqlite.so\nmax_queued_messages 0\nplugin /x/mosquitto_dynamic_security.so\n"
    )
    (text,) = of_settings(broker_check.read(path), "m.conf")
    assert "plugin_opt_sync full" in text


def test_a_file_that_was_named_and_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    config = BrokerConfig(host="192.0.2.1", settings_file=str(tmp_path / "none.conf"))
    (text,) = broker_check.findings(Greeting(), config, tmp_path)
    assert "none.conf cannot be read" in text


async def test_our_own_mosquitto_is_durable_and_the_embedded_broker_is_not(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "m.conf").write_text(mosquitto_config(BrokerConfig(), tmp_path))
    assert list(of_settings(broker_check.read(tmp_path / "m.conf"), "m.conf")) == []
    told = await _told(broker.config, broker, tmp_path)
    assert [text.split(":")[0] for text in told] == (
        ["the embedded broker keeps everything in memory"] if broker.kind == "embedded" else []
    )


@mosquitto_only
async def test_a_mosquitto_with_its_own_settings_is_warned_of(tmp_path: Path) -> None:
    config = BrokerConfig(
        mode="configured", host="127.0.0.1", port=free_port(), settings_file=str(tmp_path / "default.conf")
    )
    async with _mosquitto(config) as broker:
        told = await _told(config, broker, tmp_path)
        assert await mqtt_look.version(config, "look") != ""
    assert [text.partition(": ")[2].rpartition(": ")[2] for text in told] == [
        "persistence true",
        "max_queued_messages 0",
    ]


async def _told(config: BrokerConfig, broker: Broker, data: Path) -> list[str]:
    """The notices of a plugin's start, as many as there are once the check is over."""
    told, plugin = list[tuple[str, str]](), made(broker, data)
    plugin.context = replace(plugin.context, broker=config, notice=lambda kind, text: told.append((kind, text)))
    async with running(plugin, opened()):
        await until(lambda: not any(task.get_name() == "mqtt broker check" for task in asyncio.all_tasks()))
    return [text for kind, text in told if kind == "broker"]


@asynccontextmanager
async def _mosquitto(config: BrokerConfig) -> AsyncIterator[Broker]:
    """One that is not ours, as it comes: a listener and nothing else."""
    settings = Path(config.settings_file)
    settings.write_text(
        ("user root\n" if os.geteuid() == 0 else "") + f"listener {config.port} 127.0.0.1\nallow_anonymous true\n"
    )
    process = await asyncio.create_subprocess_exec(
        str(brokers.installed_mosquitto()), "-c", str(settings), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await (await connected(config)).__aexit__(None, None, None)
        yield Broker("configured", config, settings.parent)
    finally:
        process.terminate()
        await process.wait()
