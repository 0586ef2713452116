"""What a received message says beside its payload, and the word to a producer who asked to be told that it is safe."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence

import aiomqtt

from plugins.mqtt_outbox import Outbox
from runtime.marks import numbered
from runtime.messages import Observation, new_id

SOURCE = "mqtt"
PROPERTIES_LIMIT = 16  # user properties that are kept
TEXT_LIMIT = 200  # characters of a property, an id, a producer, a response topic
TOPIC_SIGNS = frozenset("+#/\0")  # what cannot be part of one topic level


def matches(topic: str, filters: Sequence[str]) -> bool:
    return any(aiomqtt.Topic(topic).matches(pattern) for pattern in filters)


def body(message: aiomqtt.Message) -> bytes:
    return message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()


def properties(message: aiomqtt.Message) -> dict[str, str]:
    """The user properties, as many as are sensible; an id or a name that is too long stands by its hash."""
    pairs = getattr(message.properties, "UserProperty", None) or ()
    told = {str(key)[:TEXT_LIMIT]: _short(str(value)) for key, value in pairs[:PROPERTIES_LIMIT]}
    if "id" not in told and (place := numbered(told)) is not None:
        told["id"] = "/".join(map(str, place))
    return told


def observation(topic: str, payload: bytes, told: dict[str, str], *, retained: bool) -> Observation:
    return Observation(
        id=f"{topic}:{told['id']}" if told.get("id") else new_id("ob"),
        topic=topic, payload=payload, at=time.time(), source=SOURCE, retained=retained, properties=told,
    )  # fmt: skip


def acknowledge(outbox: Outbox, agent: str, told: Mapping[str, str]) -> None:
    """Tell the producer, if the message names one, that its message is in the journal."""
    identity, producer = told.get("id", ""), told.get("producer", "")
    if identity and producer and not TOPIC_SIGNS & set(producer):
        outbox.acknowledge(f"corrigible/{agent}/ack/{producer}", identity)


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else hashlib.sha256(text.encode()).hexdigest()
