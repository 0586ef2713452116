"""What a received message says, and the word to a producer who asked to be told that it is safe."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import aiomqtt

from plugins.mqtt_outbox import Outbox
from runtime.marks import numbered
from runtime.messages import Observation, new_id

SOURCE = "mqtt"
PROPERTIES_LIMIT = 16  # user properties that are kept
TEXT_LIMIT = 200  # characters of a property, an id, a producer, a response topic
TOPIC_SIGNS = frozenset("+#/\0")  # what cannot be part of one topic level


@dataclass(frozen=True)
class Received:
    """A message, read once; `told` are its user properties."""

    topic: str
    body: bytes
    qos: int
    retain: bool
    told: dict[str, str]
    response: str  # MQTT 5 response topic, empty if nobody asked
    correlation: bytes | None
    name: str = ""  # of this delivery, the same if the broker repeats it; empty: unknown


def read(message: aiomqtt.Message) -> Received:
    payload, properties = message.payload, message.properties
    correlation = getattr(properties, "CorrelationData", None)
    return Received(
        topic=str(message.topic),
        body=payload if isinstance(payload, bytes) else str(payload).encode(),
        qos=message.qos,
        retain=message.retain,
        told=_told(getattr(properties, "UserProperty", None) or ()),
        response=str(getattr(properties, "ResponseTopic", "") or ""),
        correlation=correlation if isinstance(correlation, bytes) else None,
    )


def _told(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The user properties, as many as are sensible; an id or a name that is too long stands by its hash."""
    told = {str(key)[:TEXT_LIMIT]: _short(str(value)) for key, value in pairs[:PROPERTIES_LIMIT]}
    if "id" not in told and (place := numbered(told)) is not None:
        told["id"] = "/".join(map(str, place))
    return told


def matches(topic: str, filters: tuple[str, ...]) -> bool:
    """Remembered for topics of a sensible length: the same ones come again and again."""
    return _known(topic, filters) if len(topic) <= TEXT_LIMIT else _matches(topic, filters)


def _matches(topic: str, filters: tuple[str, ...]) -> bool:
    return any(aiomqtt.Topic(topic).matches(pattern) for pattern in filters)


_known = lru_cache(maxsize=4096)(_matches)


def observation(topic: str, payload: bytes, told: dict[str, str], *, retained: bool, name: str = "") -> Observation:
    return Observation(
        id=f"{topic}:{told['id']}" if told.get("id") else name or new_id("ob"),
        topic=topic, payload=payload, at=time.time(), source=SOURCE, retained=retained, properties=told,
    )  # fmt: skip


def acknowledge(outbox: Outbox, agent: str, told: Mapping[str, str]) -> None:
    """Tell the producer, if the message names one, that its message is in the journal."""
    identity, producer = told.get("id", ""), told.get("producer", "")
    if identity and producer and not TOPIC_SIGNS & set(producer):
        outbox.acknowledge(f"corrigible/{agent}/ack/{producer}", identity)


def _short(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else hashlib.sha256(text.encode()).hexdigest()
