"""A broker that forgot our session, and another agent with our name: both are told, and neither is told without reason."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import aiomqtt
import pytest

from plugins import mqtt_lane
from plugins.broker import Broker
from plugins.mqtt import Mqtt
from plugins.mqtt_client import DurableClient
from plugins.mqtt_sessions import CLOSED, FILE, SILENT, TAKEN_OVER, WITHIN, Rival, Sessions
from runtime.config import BrokerConfig
from tests.plugins.conftest import kinds, until
from tests.plugins.test_mqtt import made, opened, running

mosquitto_only = pytest.mark.skipif("mosquitto" not in kinds(), reason="mosquitto is not installed")


def _watched(broker: Broker, data: Path) -> tuple[Mqtt, list[tuple[str, str]]]:
    told: list[tuple[str, str]] = []
    plugin = made(broker, data)
    plugin.context = replace(plugin.context, notice=lambda kind, text: told.append((kind, text)))
    return plugin, told


def _kinds(told: list[tuple[str, str]]) -> list[str]:
    return [kind for kind, _ in told if kind.startswith("session")]


@pytest.mark.parametrize("broker", ["embedded"], indirect=True)
async def test_a_broker_that_lost_its_memory_is_told(broker: Broker, tmp_path: Path) -> None:
    plugin, told = _watched(broker, tmp_path)
    async with running(plugin, opened()):
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await until(lambda: len(_kinds(told)) == 2)  # sensors and control
    assert _kinds(told) == ["session_lost"] * 2
    assert "has forgotten the session corrigible-test-Mqtt" in dict(told)["session_lost"]


@mosquitto_only
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
async def test_a_session_lost_while_the_agent_was_away_is_told_and_a_kept_one_is_not(
    broker: Broker, tmp_path: Path
) -> None:
    for lost in (False, False, True):
        await broker.stop()
        if lost:
            (tmp_path / "broker" / "mosquitto.db").unlink()
        await broker.launch()
        plugin, told = _watched(broker, tmp_path)
        async with running(plugin, opened()):
            assert _kinds(told) == (["session_lost"] * 2 if lost else [])


async def test_another_client_with_our_id_is_told(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_lane, "BACKOFF", (0.02, 0.05))
    plugin, told = _watched(broker, tmp_path)
    async with running(plugin, opened()):
        for _ in range(SILENT):
            await until(lambda: plugin.connected)
            async with DurableClient(broker.config, identifier="corrigible-test-Mqtt"):
                await until(lambda: not plugin.connected)
        await until(lambda: _kinds(told) == ["session_taken_over"])
        assert "as corrigible-test-Mqtt and probably throws this agent out" in told[-1][1]


class Losses:
    """One lane's, at times of our choice."""

    def __init__(self) -> None:
        self.now, self.told = 0.0, list[str]()
        self._rival = Rival(lambda kind, text: self.told.append(text), clock=lambda: self.now)

    def met(self, *codes: int | None) -> list[bool]:
        return [self._rival.met("a", _error(code)) for code in codes]


def _error(code: int | None) -> aiomqtt.MqttError:
    """As it leaves aiomqtt: the reason is the cause."""
    error = aiomqtt.MqttError("Disconnected during message iteration")
    error.__cause__ = None if code is None else aiomqtt.MqttCodeError(code)
    return error


def test_a_broker_that_says_so_three_times_in_a_minute_is_believed() -> None:
    losses = Losses()
    assert losses.met(TAKEN_OVER, None, TAKEN_OVER, 7) == [False] * 4
    losses.now = WITHIN + 1
    assert losses.met(TAKEN_OVER, TAKEN_OVER) == [False] * 2
    assert losses.told == []
    assert losses.met(TAKEN_OVER, None, TAKEN_OVER) == [True, False, True]
    (text,) = losses.told  # once
    assert "and throws this agent out" in text


def test_a_broker_that_is_killed_again_and_again_is_no_rival() -> None:
    """After its death it is away, for however short a time."""
    losses = Losses()
    for _ in range(SILENT):
        losses.met(CLOSED, CLOSED, CLOSED, None)
    assert losses.told == []
    assert losses.met(*[CLOSED] * SILENT) == [False] * SILENT
    assert len(losses.told) == 1


def test_two_plugins_keep_each_others_sessions(tmp_path: Path) -> None:
    told: list[str] = []
    config = BrokerConfig(mode="configured", host="h")
    for _ in range(2):  # starts of the daemon
        first, second = (Sessions(tmp_path, config, lambda kind, text: told.append(kind)) for _ in range(2))
        first.greeted("a", False)
        second.greeted("b", False)
    assert told == ["session_lost"] * 2


def test_a_new_broker_a_new_agent_and_a_damaged_file_are_no_loss(tmp_path: Path) -> None:
    told: list[str] = []

    def sessions(**more: object) -> Sessions:
        config = BrokerConfig.model_validate({"mode": "configured", "host": "h", **more})
        return Sessions(tmp_path, config, lambda kind, text: told.append(kind))

    sessions().greeted("a", False)
    sessions(port=1884).greeted("a", False)
    sessions().greeted("b", False)
    sessions(session_expiry=0).greeted("a", False)
    sessions().greeted("a", True)
    (tmp_path / FILE).write_bytes(b"\x00{")
    sessions().greeted("a", False)
    assert told == []
    sessions().greeted("a", False)
    assert told == ["session_lost"]
