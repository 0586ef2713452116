"""config -> an AsyncAPI 3.0 document of every MQTT topic the agent listens to and speaks on (`corrigible topics`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

import runtime
from plugins.mqtt import Mqtt
from plugins.mqtt_device import Device
from runtime import plugins as loading
from runtime.config import Config
from runtime.errors import BadConfig

Json = dict[str, Any]
COMMAND_PROPERTIES: Json = {
    "type": "object",
    "description": "MQTT 5 user properties",
    "properties": {
        "cmd_id": {"type": "string", "description": "the command; a copy has the same id"},
        "not_after": {"type": "string", "description": "seconds since 1970; too late after that"},
    },
}
SENDER_PROPERTIES: Json = {
    "type": "object",
    "description": "MQTT 5 user properties, optional: with both, the producer is told on its ack topic",
    "properties": {"id": {"type": "string"}, "producer": {"type": "string"}},
}
ACTION: Json = {
    "oneOf": [
        {"type": "string", "examples": ["living_room_lamp dim"]},
        {
            "type": "object",
            "required": ["tool"],
            "properties": {"tool": {"type": "string"}, "arguments": {"type": "object"}},
        },
    ]
}


def document(config: Config) -> Json:
    """The whole document; plugins other than the MQTT one have no topics."""
    paper = Paper(config.agent.name)
    paper.own()
    for number, entry in enumerate(config.plugin, start=1):
        paper.plugin(number, entry)
    broker = config.broker
    scheme = "secure-mqtt" if broker.tls else "mqtt"
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Corrigible agent {config.agent.name!r}",
            "version": runtime.__version__,
            "description": "Topics of one online-learning agent. It acknowledges (PUBACK) after its journal has a message.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": f"{broker.host or '127.0.0.1'}:{broker.port}",
                "protocol": scheme,
                "protocolVersion": "5",
            }
        },
        "channels": paper.channels,
        "operations": paper.operations,
        "components": {"messages": paper.messages, "schemas": paper.schemas},
    }


class Paper:
    """The document while it is written."""

    def __init__(self, agent: str) -> None:
        self._own = f"corrigible/{agent}"
        self.channels: Json = {}
        self.operations: Json = {}
        self.messages: Json = {}
        self.schemas: Json = {
            "feedback": _feedback(), "decision": _decision(), "action": ACTION,
            "response": _object({"status": {"enum": ["ok", "error"]}, "id": {}, "decision": {}, "error": {"type": "string"}}, "status"),
            "ack": _object({"ids": {"type": "array", "items": {"type": "string"}}}, "ids"),
            "applied": _object({"cmd_id": {"type": "string"}, "error": {"type": "string"}}, "cmd_id"),
            "bridge": {"enum": ["online", "offline"]},
            "reading": {"description": "JSON or plain text, at most 64 KiB; a person's words go to a topic ending in /speech or under the key says"},
        }  # fmt: skip

    def own(self) -> None:
        """The topics every agent with an MQTT plugin has."""
        self.channel(
            "feedback",
            f"{self._own}/feedback",
            "receive",
            "feedback",
            "what a person says about a decision",
            SENDER_PROPERTIES,
        )
        self.channel("response", f"{self._own}/feedback/response", "send", "response", "the answer to a feedback")
        self.channel(
            "applied", f"{self._own}/applied", "receive", "applied", "a device carried out a command, or could not"
        )
        self.channel(
            "decision",
            f"{self._own}/decision/{{scope}}",
            "send",
            "decision",
            "every decision, in the moment it is made",
        )
        self.channel(
            "ack",
            f"{self._own}/ack/{{producer}}",
            "send",
            "ack",
            "ids that are in the journal; send again until they are named",
        )
        self.channel("bridge", f"{self._own}/bridge/state", "send", "bridge", "retained, and the last will")

    def plugin(self, number: int, entry: Mapping[str, Any]) -> None:
        """The topics of one `[[plugin]]` table, if it is of the MQTT plugin."""
        use = str(entry.get("use", ""))
        if loading.resolve(use, f"[[plugin]] number {number}") is not Mqtt:
            return
        try:
            plugin = msgspec.convert({key: value for key, value in entry.items() if key not in ("use", "name")}, Mqtt)
        except msgspec.ValidationError as error:
            raise BadConfig(f"[[plugin]] number {number} ({use}): {error}") from None
        for topic in plugin.sensors:
            self.channel(f"sensor {topic}", topic, "receive", "reading", "what a sensor says", SENDER_PROPERTIES)
        for topic in plugin.feedback:
            self.channel(
                f"feedback {topic}",
                topic,
                "receive",
                "feedback",
                "what a person says about a decision",
                SENDER_PROPERTIES,
            )
        for device in plugin.actuators:
            self.device(device)

    def device(self, device: Device) -> None:
        value = device.tool().arguments[device.argument]
        schema = f"set {device.name}"
        note = f"payload {device.payload}, confirmed by: {device.confirmation}"
        self.schemas[_key(schema)] = value if device.payload == "$value" else {"description": note, "x-value": value}
        self.channel(
            schema, device.topic, "send", schema, f"sets {device.name} of {device.scope}; {note}", COMMAND_PROPERTIES
        )
        if device.state_topic:
            self.channel(
                f"state {device.name}",
                device.state_topic,
                "receive",
                "reading",
                f"how {device.name} is",
                SENDER_PROPERTIES,
            )

    def channel(
        self, name: str, address: str, action: str, schema: str, summary: str, headers: Json | None = None
    ) -> None:
        """One topic, its message and what the agent does with it (`receive` or `send`)."""
        key = _key(name)
        parameters, address = _parameters(address)
        self.messages[key] = {
            "name": key, "summary": summary, "payload": {"$ref": f"#/components/schemas/{_key(schema)}"},
            **({"headers": headers} if headers else {}),
        }  # fmt: skip
        self.channels[key] = {
            "address": address, "messages": {key: {"$ref": f"#/components/messages/{key}"}},
            **({"parameters": parameters} if parameters else {}),
        }  # fmt: skip
        self.operations[f"{action}_{key}"] = {
            "action": action, "channel": {"$ref": f"#/channels/{key}"}, "summary": summary,
            "messages": [{"$ref": f"#/channels/{key}/messages/{key}"}],
            "bindings": {"mqtt": {"qos": 1, "retain": key == "bridge", "bindingVersion": "0.2.0"}},
        }  # fmt: skip


def _parameters(topic: str) -> tuple[Json, str]:
    """AsyncAPI knows no wildcards: `home/+/light` becomes `home/{level1}/light`."""
    levels, parameters = [], {}
    for number, level in enumerate(topic.split("/"), start=1):
        name = {"+": f"level{number}", "#": "rest"}.get(level, level[1:-1] if level.startswith("{") else "")
        if name:
            about = "the rest of the topic, any number of levels (#)" if level == "#" else "one level (+)"
            parameters[name] = {"description": about if level in ("+", "#") else f"the {name}"}
        levels.append(f"{{{name}}}" if name else level)
    return parameters, "/".join(levels)


def _key(name: str) -> str:
    """A component name: letters, digits, `_` and `-` only; different topics stay different."""
    spelled = {"+": "any", "#": "all", "/": "_", " ": "_"}
    return "".join(spelled.get(c, c if c.isascii() and (c.isalnum() or c in "_-") else f"-{ord(c):x}-") for c in name)


def _object(properties: Json, *required: str) -> Json:
    return {"type": "object", "properties": properties, "required": list(required)}


def _feedback() -> Json:
    one: Sequence[tuple[str, ...]] = (("correct",), ("accept",), ("rating",), ("prefer", "over"))
    action = {"$ref": "#/components/schemas/action"}
    properties = {
        "decision": {"type": "string"}, "correct": action, "accept": {"type": "boolean"}, "prefer": action, "over": action,
        "rating": {"type": "number", "minimum": -1, "maximum": 1},
        "id": {"type": "string"}, "source": {"type": "string"}, "note": {"type": "string"},
    }  # fmt: skip
    return {**_object(properties, "decision"), "oneOf": [{"required": list(keys)} for keys in one]}


def _decision() -> Json:
    text: Json = {"type": "string"}
    actions = {"type": "array", "items": _object({"tool": text, "arguments": {"type": "object"}}, "tool")}
    return _object(
        {"id": text, "percept": text, "scope": text, "text": text, "action": text, "actions": actions, "by": text,
         "adapter": text, "p": {"type": ["number", "null"]}, "chance": {"type": ["number", "null"]},
         "choices": {"type": "array", "items": text}},
        "id", "percept", "action",
    )  # fmt: skip
