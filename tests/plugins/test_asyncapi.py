"""The topics as AsyncAPI 3: every topic of the configuration is in it, and every reference leads somewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from plugins.asyncapi import document
from runtime.config import Config
from runtime.errors import BadConfig

MQTT = {
    "use": "plugins.mqtt:Mqtt",
    "sensors": ["home/+/+", "garden/#"],
    "feedback": ["said/about"],
    "actuators": [
        {
            "name": "lamp",
            "scope": "room",
            "topic": "home/room/lamp/set",
            "values": ["off", "dim"],
            "state_topic": "home/room/lamp",
        },
        {
            "name": "heat",
            "scope": "room",
            "topic": "home/room/heat/set",
            "minimum": 5.0,
            "maximum": 30.0,
            "payload": '{"t": $value}',
        },
    ],
}


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_topic_is_there_with_its_direction() -> None:
    paper = document(Config(plugin=[MQTT]))
    by_address = {channel["address"]: key for key, channel in paper["channels"].items()}
    said = {op["channel"]["$ref"].rsplit("/", 1)[1]: op["action"] for op in paper["operations"].values()}
    wanted = {
        "home/{level2}/{level3}": "receive", "garden/{rest}": "receive", "said/about": "receive",
        "home/room/lamp/set": "send", "home/room/heat/set": "send", "home/room/lamp": "receive",
        "corrigible/corrigible/feedback": "receive", "corrigible/corrigible/decision/{scope}": "send",
        "corrigible/corrigible/ack/{producer}": "send", "corrigible/corrigible/applied": "receive",
        "corrigible/corrigible/bridge/state": "send", "corrigible/corrigible/feedback/response": "send",
    }  # fmt: skip
    assert {address: said[key] for address, key in by_address.items()} == wanted
    assert paper["components"]["schemas"]["set_lamp"] == {"enum": ["off", "dim"]}


def test_every_reference_leads_somewhere_and_it_is_json() -> None:
    paper = json.loads(json.dumps(document(Config(plugin=[MQTT])), allow_nan=False))
    assert paper["asyncapi"] == "3.0.0"
    for reference in references(paper):
        node = paper
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_without_an_mqtt_plugin_there_are_the_agents_own_topics() -> None:
    assert len(document(Config(plugin=[]))["channels"]) == 6


def test_a_bad_actuator_is_named() -> None:
    with pytest.raises(BadConfig, match="number 1"):
        document(Config(plugin=[{"use": "plugins.mqtt:Mqtt", "actuators": [{"nam": "x"}]}]))
