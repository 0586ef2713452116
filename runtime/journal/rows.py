"""Message -> table row: which columns stand beside the message's own JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from runtime.messages import (
    Action,
    Command,
    Cycle,
    Decision,
    Feedback,
    Forgotten,
    Gap,
    Message,
    Observation,
    Outcome,
    Percept,
    Quarantined,
    Release,
)

Row = tuple[str, dict[str, Any]]  # SQL and its named parameters
COLUMNS: dict[type[Message], tuple[str, ...]] = {  # the fields that a column of the same name repeats, to ask by
    Observation: ("id", "at", "topic", "source", "payload"),
    Percept: ("id", "at", "scope", "text", "synthetic"),
    Decision: ("id", "at", "percept_id", "scope", "by", "adapter", "p_model", "p_behaviour"),
    Command: ("id", "at", "decision_id", "actuator", "action", "expires_at"),
    Outcome: ("id", "at", "decision_id", "command_id", "status", "reason"),
    Feedback: ("id", "at", "decision_id", "kind", "source", "action", "rating"),
    Forgotten: ("id", "at", "feedback_id", "by"),
    Cycle: ("id", "started_at", "state", "reason", "examples", "adapter"),
    Release: ("id", "at", "lane", "adapter", "previous", "why", "provisional"),
    Gap: ("id", "at", "producer", "boot", "first", "last", "filled"),
    Quarantined: ("id", "at", "topic", "reason", "size", "sha256", "payload"),
}
TABLES = tuple(kind.__name__.lower() for kind in COLUMNS)  # a row refers to those of tables before it


def row(message: Message) -> Row:
    """The INSERT of a message. Everything is idempotent by id; a Cycle and a Gap replace their older state."""
    columns = {**_columns(message), "body": _body(message)}
    table = type(message).__name__.lower()
    names = ", ".join(columns)
    values = ", ".join(f":{name}" for name in columns)
    clash = "DO NOTHING"
    if isinstance(message, Cycle | Gap):
        clash = "(id) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in columns if name != "id")
    return f"INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT {clash}", columns


def _columns(message: Message) -> dict[str, Any]:
    columns = {name: _value(getattr(message, name)) for name in COLUMNS[type(message)]}
    if isinstance(message, Decision):
        columns["action"] = json_of(message.actions[0])
    return columns


def _value(field: Any) -> Any:
    """A field as SQLite keeps it: actions as JSON, truth as 0 or 1."""
    if isinstance(field, Action):
        return json_of(field)
    return int(field) if isinstance(field, bool) else field


def json_of(value: Any) -> str:
    """JSON with sorted keys, so that equal actions are equal strings."""
    return msgspec.json.encode(value, order="sorted").decode()


def _body(message: Message) -> str:
    """The message as JSON, without a payload that has a column of its own."""
    if isinstance(message, Observation | Quarantined):
        return json_of(msgspec.structs.replace(message, payload=b""))
    return json_of(message)
