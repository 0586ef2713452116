"""Message -> table row: which columns stand beside the message's own JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from runtime.messages import (
    Command,
    Cycle,
    Decision,
    Feedback,
    Message,
    Observation,
    Outcome,
    Percept,
    Quarantined,
    Release,
)

Row = tuple[str, dict[str, Any]]  # SQL and its named parameters


def row(message: Message) -> Row:
    """The INSERT of a message. Everything is idempotent by id; a Cycle replaces its older state."""
    columns = {**_columns(message), "body": _body(message)}
    table = type(message).__name__.lower()
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    clash = "DO NOTHING"
    if isinstance(message, Cycle):
        clash = "DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in columns if name != "id")
    return (
        f"INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT {'(id) ' if 'UPDATE' in clash else ''}{clash}",
        columns,
    )


def _columns(message: Message) -> dict[str, Any]:
    match message:
        case Observation(id=id, at=at, topic=topic, source=source, payload=payload):
            return {"id": id, "at": at, "topic": topic, "source": source, "payload": payload}
        case Percept(id=id, at=at, scope=scope, text=text, synthetic=synthetic):
            return {"id": id, "at": at, "scope": scope, "text": text, "synthetic": int(synthetic)}
        case Decision():
            return _decision(message)
        case Command(id=id, at=at, decision_id=decision, actuator=actuator, action=action, expires_at=expires):
            return {
                "id": id,
                "at": at,
                "decision_id": decision,
                "actuator": actuator,
                "action": json_of(action),
                "expires_at": expires,
            }
        case Outcome(id=id, at=at, decision_id=decision, command_id=command, status=status, reason=reason):
            return {
                "id": id,
                "at": at,
                "decision_id": decision,
                "command_id": command,
                "status": status,
                "reason": reason,
            }
        case Feedback():
            return _feedback(message)
        case Cycle(id=id, started_at=at, state=state, reason=reason, examples=examples, adapter=adapter):
            return {
                "id": id,
                "started_at": at,
                "state": state,
                "reason": reason,
                "examples": examples,
                "adapter": adapter,
            }
        case Release(id=id, at=at, lane=lane, adapter=adapter, previous=previous, why=why, provisional=provisional):
            return {
                "id": id,
                "at": at,
                "lane": lane,
                "adapter": adapter,
                "previous": previous,
                "why": why,
                "provisional": int(provisional),
            }
        case Quarantined(id=id, at=at, topic=topic, reason=reason, size=size, sha256=sha256, payload=payload):
            return {
                "id": id,
                "at": at,
                "topic": topic,
                "reason": reason,
                "size": size,
                "sha256": sha256,
                "payload": payload,
            }
    raise TypeError(f"{type(message).__name__} has no table")


def _decision(message: Decision) -> dict[str, Any]:
    return {
        "id": message.id,
        "percept_id": message.percept_id,
        "at": message.at,
        "scope": message.scope,
        "action": json_of(message.actions[0]),
        "by": message.by,
        "adapter": message.adapter,
        "p_model": message.p_model,
        "p_behaviour": message.p_behaviour,
    }


def _feedback(message: Feedback) -> dict[str, Any]:
    return {
        "id": message.id,
        "decision_id": message.decision_id,
        "at": message.at,
        "kind": message.kind,
        "source": message.source,
        "action": None if message.action is None else json_of(message.action),
        "rating": message.rating,
    }


def json_of(value: Any) -> str:
    """JSON with sorted keys, so that equal actions are equal strings."""
    return msgspec.json.encode(value, order="sorted").decode()


def _body(message: Message) -> str:
    """The message as JSON, without a payload that has a column of its own."""
    if isinstance(message, Observation | Quarantined):
        return json_of(msgspec.structs.replace(message, payload=b""))
    return json_of(message)
