"""The configuration that the simulated home prints is one the daemon takes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import UTC
from pathlib import Path

import msgspec

from plugins.house.model import DEVICES
from plugins.house.settings import plugin_tables
from plugins.mqtt_device import Device
from runtime.config import BrokerConfig, load
from runtime.plugins import load as load_plugins
from runtime.roles import Context


def test_the_printed_configuration_is_valid(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "plugins.simulated_home", "--print-config"]
    printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    file = tmp_path / "config.toml"
    file.write_text(printed)
    config = load(file)
    assert config.plugin == plugin_tables() == tomllib.loads(printed)["plugin"]
    assert set(config.modes) == {device.actuator for device in DEVICES}
    context = Context(agent="a", data=tmp_path, broker=BrokerConfig(mode="none"), zone=UTC)
    assert len(load_plugins(config.plugin, context)) == 2


def test_the_mqtt_plugin_understands_every_device() -> None:
    devices = msgspec.convert(plugin_tables()[0]["actuators"], list[Device])
    for device, ours in zip(devices, DEVICES, strict=True):
        device.check()
        assert device.tool().choices() == [{"level": value} for value in ours.values]
        for value in ours.values:
            assert ours.read(device.message(value).decode()) == value
            assert device.shows(msgspec.json.encode({"state": value}), value)
