"""An actuator entry: its tool, its payload, and when a state message confirms a command."""

from __future__ import annotations

import pytest

from plugins.mqtt_device import Device
from runtime.errors import BadConfig

LAMP = Device(name="lamp", scope="room", topic="home/lamp/set", values=["off", "dim", 50], state_topic="home/lamp")


@pytest.mark.parametrize(
    ("template", "value", "body"),
    [
        ("$value", "dim", b"dim"), ("$value", 21.5, b"21.5"), ("$value", True, b"true"),
        ('{"state": "$value"}', 'a"b', b'{"state": "a\\"b"}'), ('{"brightness": $value}', 127, b'{"brightness": 127}'),
    ],
)  # fmt: skip
def test_the_payload(template: str, value: object, body: bytes) -> None:
    device = Device(name="d", scope="s", topic="t", values=["x"], payload=template)
    assert device.message(value) == body


@pytest.mark.parametrize(
    ("body", "value", "shown"),
    [
        (b"dim", "dim", True), (b"DIM", "dim", True), (b"off", "dim", False), (b'{"state": "dim", "x": 1}', "dim", True),
        (b"50.3", 50, True), (b"51", 50, False), (b"true", "on", True), (b"\xff", "dim", False), (b"{}", "dim", False),
        (b"[1]", "dim", False), (b"null", "dim", False),
    ],
)  # fmt: skip
def test_what_confirms(body: bytes, value: object, shown: bool) -> None:
    assert LAMP.shows(body, value) is shown


def test_a_path_into_the_state() -> None:
    device = Device(name="d", scope="s", topic="t", minimum=5, maximum=30, step=0.5, state_topic="x", state_path="a.b")
    assert device.shows(b'{"a": {"b": 21.7}}', 21.5)
    assert not device.shows(b'{"a": {"b": 21.8}}', 21.5)
    assert not device.shows(b'{"a": 21.5}', 21.5)


def test_the_tool() -> None:
    assert LAMP.tool().choices() == [{"level": "off"}, {"level": "dim"}, {"level": 50}]
    stepped = Device(name="d", scope="s", topic="t", minimum=17, maximum=18, step=0.5)
    assert stepped.tool().arguments["level"] == {"enum": [17, 17.5, 18]}
    wide = Device(name="d", scope="s", topic="t", minimum=0, maximum=1000, step=1)
    assert wide.tool().arguments["level"] == {"type": "integer", "minimum": 0, "maximum": 1000}


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (Device(name="d", scope="s", topic="t"), "values"),
        (Device(name="d", scope="s", topic="t/#", values=["x"]), "wildcard"),
        (Device(name="d", scope="s", topic="t", values=["x"], confirm="state"), "state_topic"),
        (Device(name="d", scope="s", topic="t", values=["x"], payload="ON"), r"\$value"),
        (Device(name="a d", scope="s", topic="t", values=["x"]), "one word"),
        (Device(name="d", scope="s", topic="t", minimum=3, maximum=2), "minimum"),
    ],
)
def test_contradictions_are_one_sentence(device: Device, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        device.check()
