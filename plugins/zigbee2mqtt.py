"""zigbee2mqtt's `bridge/devices` message -> the house's devices, what each can be set to, and config entries to copy. Reads only.

`python -m plugins.zigbee2mqtt devices.json` prints them (the file is the retained payload of `zigbee2mqtt/bridge/devices`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from runtime.errors import BadInput, CorrigibleError
from runtime.messages import Message

PUBLISHED, SETTABLE = 1, 2  # bits of a feature's `access`
DEPTH_LIMIT = 8  # features inside features


class Feature(Message, frozen=True, kw_only=True):
    """One property of a device and the values it can take."""

    name: str  # the key in the device's state
    kind: str  # binary, numeric, enum, text ...
    settable: bool
    values: tuple[str | int | float | bool, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    unit: str = ""
    description: str = ""


class Z2mDevice(Message, frozen=True, kw_only=True):
    name: str  # friendly name: the topic below the base
    address: str
    vendor: str = ""
    model: str = ""
    description: str = ""
    features: tuple[Feature, ...] = ()


def describe(payload: bytes) -> list[Z2mDevice]:
    """The devices of a `bridge/devices` payload, without the coordinator. Raises BadInput if it is not one."""
    try:
        entries = msgspec.json.decode(payload, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"this is not zigbee2mqtt's bridge/devices (a JSON list of devices): {error}") from None
    return [
        _device(number, entry) for number, entry in enumerate(entries, start=1) if entry.get("type") != "Coordinator"
    ]


def suggestions(device: Z2mDevice, base: str = "zigbee2mqtt") -> list[dict[str, Any]]:
    """`[[plugin.actuators]]` entries of the MQTT plugin, one for each feature that can be set to known values."""
    word = "".join(letter if letter.isalnum() else "_" for letter in device.name.lower())
    found = []
    for feature in device.features:
        if not feature.settable or not (feature.values or feature.maximum is not None):
            continue
        limits = {"minimum": feature.minimum or 0.0, "maximum": feature.maximum, "step": feature.step or 1.0}
        text = all(isinstance(value, str) for value in feature.values) and feature.values
        found.append(
            {
                "name": word if feature.name == "state" else f"{word}_{feature.name}",
                "scope": word.split("_")[0],
                "topic": f"{base}/{device.name}/set",
                "payload": f'{{"{feature.name}": "$value"}}' if text else f'{{"{feature.name}": $value}}',
                "state_topic": f"{base}/{device.name}",
                "state_path": feature.name,
                **({"values": list(feature.values)} if feature.values else limits),
            }
        )
    return found


def _device(number: int, entry: Mapping[str, Any]) -> Z2mDevice:
    name, address = entry.get("friendly_name"), entry.get("ieee_address")
    if not isinstance(name, str) or not isinstance(address, str):
        raise BadInput(
            f"bridge/devices: entry {number} has no friendly_name and ieee_address; is this the whole payload?"
        )
    definition = entry.get("definition")
    known = definition if isinstance(definition, dict) else {}  # null for a device that zigbee2mqtt does not support
    exposes = known.get("exposes", [])
    if not isinstance(exposes, list):
        raise BadInput(f"bridge/devices: {name}: exposes is not a list")
    return Z2mDevice(
        name=name,
        address=address,
        vendor=str(known.get("vendor") or ""),
        model=str(known.get("model") or ""),
        description=str(known.get("description") or ""),
        features=tuple(_features(name, exposes, DEPTH_LIMIT)),
    )


def _features(device: str, exposes: list[Any], depth: int) -> Iterator[Feature]:
    """Lights, switches and climates group their features; a group has no `property` of its own."""
    for expose in exposes:
        if not isinstance(expose, dict) or not isinstance(expose.get("type"), str) or depth == 0:
            raise BadInput(f"bridge/devices: {device}: an expose is not an object with a type")
        inner = expose.get("features")
        if isinstance(inner, list) and expose["type"] != "composite":
            yield from _features(device, inner, depth - 1)
        elif isinstance(expose.get("property"), str):
            yield _feature(expose)


def _feature(expose: Mapping[str, Any]) -> Feature:
    access = expose.get("access")
    kind = str(expose["type"])
    if kind == "binary":
        values = (expose.get("value_off"), expose.get("value_on"))
    else:
        listed = expose.get("values")
        values = tuple(listed) if kind == "enum" and isinstance(listed, list) else ()
    return Feature(
        name=expose["property"],
        kind=kind,
        settable=isinstance(access, int) and bool(access & SETTABLE),
        values=tuple(value for value in values if isinstance(value, str | int | float | bool)),
        minimum=_number(expose.get("value_min")),
        maximum=_number(expose.get("value_max")),
        step=_number(expose.get("value_step")),
        unit=str(expose.get("unit") or ""),
        description=str(expose.get("description") or ""),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _range(feature: Feature) -> str:
    if feature.values:
        return " | ".join(map(str, feature.values))
    if feature.minimum is None and feature.maximum is None:
        return feature.kind
    return (
        f"{feature.minimum:g} .. {feature.maximum:g}"
        if None not in (feature.minimum, feature.maximum)
        else feature.kind
    )


def listing(devices: list[Z2mDevice]) -> str:
    """The devices as a person reads them."""
    lines = []
    for device in devices:
        lines.append(f"{device.name}  ({device.vendor} {device.model} {device.description})".replace("  )", ")"))
        for feature in device.features:
            access = "set" if feature.settable else "read"
            lines.append(f"    {access:4} {feature.name}: {_range(feature)} {feature.unit}".rstrip())
    return "\n".join(lines)


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m plugins.zigbee2mqtt FILE\n")
        return 2
    try:
        sys.stdout.write(listing(describe(Path(sys.argv[1]).read_bytes())) + "\n")
    except (OSError, CorrigibleError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
