"""The daemon's configuration for this home over MQTT: `python -m plugins.simulated_home --print-config > config.toml`."""

from __future__ import annotations

import json
from typing import Any

from plugins.house.model import DEVICES
from plugins.house.player import APP, AUTOMATION, GUEST

SENSORS = ["home/+", "home/+/+"]  # rooms; the weather, the clock, what the devices show, speech


def plugin_tables() -> list[dict[str, Any]]:
    """The `[[plugin]]` tables: the broker's topics, and the critic that notices overrides."""
    actuators = [
        {
            "name": device.actuator,
            "scope": device.room,
            "topic": f"{device.topic}/set",
            "values": list(device.values),
            "state_topic": device.topic,
        }
        for device in DEVICES
    ]
    return [
        {"use": "plugins.mqtt:Mqtt", "sensors": SENSORS, "actuators": actuators},
        {
            "use": "plugins.override:Override",
            "known": [AUTOMATION, APP],
            "guests": [GUEST],
            "actuators": [device.actuator for device in DEVICES],
        },
    ]


def modes() -> dict[str, str]:
    """Nothing here can break: the simulated home's actuators may act, also over MQTT."""
    return {device.actuator: "act" for device in DEVICES}


def as_toml() -> str:
    lines = ["[modes]", *(f"{name} = {_value(mode)}" for name, mode in modes().items())]
    for table in plugin_tables():
        lines += ["", "[[plugin]]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        inner = [_value(item) for item in value]
        if len(", ".join(inner)) < 100:
            return f"[{', '.join(inner)}]"
        return "[\n" + "".join(f"  {item},\n" for item in inner) + "]"
    return json.dumps(value)
