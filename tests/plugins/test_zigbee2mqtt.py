"""A house read from zigbee2mqtt's own message, and what happens when the message is something else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.mqtt_device import Device
from plugins.zigbee2mqtt import describe, listing, suggestions
from runtime.errors import BadInput

BULB = {
    "ieee_address": "0x01", "type": "Router", "friendly_name": "living room/lamp",
    "definition": {
        "vendor": "IKEA", "model": "LED1", "description": "bulb",
        "exposes": [
            {"type": "light", "features": [
                {"type": "binary", "property": "state", "name": "state", "access": 7, "value_on": "ON", "value_off": "OFF"},
                {"type": "numeric", "property": "brightness", "access": 7, "value_min": 0, "value_max": 254},
            ]},
            {"type": "enum", "property": "effect", "access": 2, "values": ["blink", "breathe"]},
            {"type": "numeric", "property": "linkquality", "access": 1, "unit": "lqi", "value_min": 0, "value_max": 255},
        ],
    },
}  # fmt: skip
HOUSE: list[dict[str, Any]] = [
    {"ieee_address": "0x00", "type": "Coordinator", "friendly_name": "Coordinator", "definition": None},
    BULB,
    {"ieee_address": "0x02", "type": "EndDevice", "friendly_name": "unknown", "definition": None},
]


def test_the_devices_and_their_ranges() -> None:
    bulb, unknown = describe(json.dumps(HOUSE).encode())
    assert [(f.name, f.settable) for f in bulb.features] == [
        ("state", True),
        ("brightness", True),
        ("effect", True),
        ("linkquality", False),
    ]
    assert bulb.features[0].values == ("OFF", "ON")
    assert (bulb.features[1].minimum, bulb.features[1].maximum) == (0, 254)
    assert unknown.features == ()
    assert "set  brightness: 0 .. 254" in listing([bulb, unknown])


def test_suggestions_are_valid_actuator_entries() -> None:
    entries = suggestions(describe(json.dumps(HOUSE).encode())[0])
    devices = [msgspec.convert(entry, Device) for entry in entries]
    for device in devices:
        device.check()
    assert [device.name for device in devices] == [
        "living_room_lamp",
        "living_room_lamp_brightness",
        "living_room_lamp_effect",
    ]
    assert devices[0].message("ON") == b'{"state": "ON"}'
    assert devices[1].message(127) == b'{"brightness": 127}'
    assert devices[1].shows(b'{"state": "ON", "brightness": 127}', 127)


@pytest.mark.parametrize("raw", [b"", b"\xff", b"{}", b"[1]", b"[{}]", b'[{"friendly_name": "a"}]', b"[" * 100_000])
def test_anything_else_is_one_clear_error(raw: bytes) -> None:
    with pytest.raises(BadInput, match="bridge/devices"):
        describe(raw)


@given(st.lists(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "features", "property", "access", "values", "value_min", "value_max"]), inner, max_size=5),
), max_size=3))  # fmt: skip
def test_malformed_exposes_never_raise_anything_else(exposes: list[Any]) -> None:
    device = {**BULB, "definition": {"exposes": exposes}}
    try:
        listing(describe(json.dumps([device]).encode()))
    except BadInput:
        return
