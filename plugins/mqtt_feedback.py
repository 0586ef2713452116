"""A feedback topic's payload -> Feedback: correction, acceptance, rating or preference, as a person or a program writes it.

    {"decision": "de-…", "correct": "lamp dim"}            or {"tool": "lamp", "arguments": {"level": "dim"}}
    {"decision": "de-…", "accept": true}
    {"decision": "de-…", "rating": 0.5}
    {"decision": "de-…", "prefer": "lamp dim", "over": "lamp bright"}

`id` (so that sending twice counts once), `source` and `note` may be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime import payload
from runtime.errors import BadInput
from runtime.messages import Action, Feedback, FeedbackKind, derived_id, new_id

TEXT = "text"  # an action of this tool is a rendered action; the runtime reads it with the decision's catalogue
NOTE_LIMIT = 2000  # characters
KEYS = {"decision", "correct", "accept", "rating", "prefer", "over", "id", "source", "note", "transaction"}


def read(body: bytes, *, identity: str, source: str, at: float) -> Feedback:
    """The feedback that a payload is. `identity` is the message's own id, if it has one. Raises BadInput."""
    message = payload.parse(body)
    if not isinstance(message, dict):
        raise BadInput('a feedback is a JSON object such as {"decision": "de-…", "correct": "lamp dim"}')
    unknown = sorted(set(message) - KEYS)
    if unknown:
        raise BadInput(f"a feedback has no key {unknown[0]!r}; its keys are {', '.join(sorted(KEYS))}")
    decision = message.get("decision")
    if not isinstance(decision, str) or not decision:
        raise BadInput("a feedback needs the decision's id under the key 'decision'")
    kind, fields = _judgement(message)
    named = message.get("id")
    own = named if isinstance(named, str) else identity
    return Feedback(
        id=derived_id("fb", own, decision) if own else new_id("fb"),
        decision_id=decision,
        kind=kind,
        source=_text(message, "source") or source,
        note=_text(message, "note"),
        at=at,
        **fields,
    )


def unreadable(body: bytes, reason: str, *, identity: str, source: str, at: float) -> Feedback:
    """A feedback without an action, which the runtime refuses and keeps in quarantine with what was sent."""
    decision = ""
    try:
        message = payload.parse(body)
        decision = str(message.get("decision", "")) if isinstance(message, dict) else ""
    except BadInput:
        pass
    return Feedback(
        id=derived_id("fb", identity, "unreadable") if identity else new_id("fb"), decision_id=decision, kind="correction",
        source=source, note=reason, at=at, evidence={"payload": body[:NOTE_LIMIT].decode(errors="replace")},
    )  # fmt: skip


def _judgement(message: Mapping[str, Any]) -> tuple[FeedbackKind, dict[str, Any]]:
    given = [key for key in ("correct", "accept", "rating", "prefer") if key in message]
    if len(given) != 1:
        raise BadInput("a feedback says exactly one of 'correct', 'accept', 'rating' or 'prefer' (with 'over')")
    key, value = given[0], message[given[0]]
    if key == "correct":
        return "correction", {"action": _action(value)}
    if key == "prefer":
        if "over" not in message:
            raise BadInput("a preference needs the other action under the key 'over'")
        return "preference", {"action": _action(value), "rejected": _action(message["over"])}
    if key == "accept":
        if not isinstance(value, bool):
            raise BadInput("'accept' is true or false")
        return ("acceptance", {}) if value else ("rating", {"rating": -1.0})
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise BadInput("'rating' is a number from -1 to 1")
    return "rating", {"rating": float(value)}


def _action(value: object) -> Action:
    if isinstance(value, str) and value.strip():
        return Action(tool=TEXT, arguments={"text": value.strip()})
    if isinstance(value, dict) and isinstance(value.get("tool"), str) and set(value) <= {"tool", "arguments"}:
        arguments = value.get("arguments", {})
        if isinstance(arguments, dict):
            return Action(tool=value["tool"], arguments=arguments)
    raise BadInput('an action is text such as "lamp dim", or {"tool": "lamp", "arguments": {"level": "dim"}}')


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key, "")
    if not isinstance(value, str):
        raise BadInput(f"{key!r} is a text")
    return value[:NOTE_LIMIT]
