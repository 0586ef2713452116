"""bytes from outside -> JSON value or BadInput: every limit that stands before a payload is believed, and quarantine's form.

What is covered: size, depth, number of keys, UTF-8, duplicate keys, numbers JSON cannot say or SQLite cannot keep, lone
surrogates, control characters in plain text. What is not: whether the value makes sense; that is for whoever reads it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, NoReturn

import msgspec

from runtime.errors import BadInput
from runtime.messages import Feedback, Observation, Quarantined, derived_id

SIZE_LIMIT = 65536  # bytes of one payload, and of what quarantine keeps of a larger one
DEPTH_LIMIT = 32  # arrays and objects inside one another
KEY_LIMIT = 1000  # keys of all objects of one payload together
VALUE_LIMIT = 5000  # values of one payload: a list of 32,000 numbers held the loop up for 77 ms
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
TOPIC_LIMIT = 1000  # characters of a topic that quarantine keeps

Value = Any  # dict | list | str | int | float | bool | None, finite all the way down

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_ATOM = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def parse(payload: bytes) -> Value:
    """The JSON value of a payload. Raises BadInput with the reason if it breaks a limit or is not JSON."""
    return _json(_text(payload))


def parse_scalar(payload: bytes) -> Value:
    """Like `parse`, but a payload that does not look like JSON is a plain string: `ON`, `half open`, `12:30`."""
    text = _text(payload).strip()
    if not text:
        raise BadInput("the payload is empty")
    if text[0] in '{["':
        return _json(text)
    if _ATOM.fullmatch(text):
        return _ATOMS.decode(text)  # most of what sensors say
    if _NOT_FINITE.fullmatch(text):
        raise BadInput(f"{text} is not a number that can be measured")
    if _CONTROL.search(text):
        raise BadInput("the text has control characters")
    return text


def quarantined(observation: Observation, reason: str) -> Quarantined:
    """What is kept of an observation that cannot be used."""
    return _kept(observation.id, observation.topic, observation.payload, reason, observation.source, observation.at)


def quarantined_feedback(feedback: Feedback, reason: str) -> Quarantined:
    """What is kept of a feedback that cannot be used."""
    return _kept(feedback.id, "feedback", msgspec.json.encode(feedback), reason, feedback.source, feedback.at)


def _kept(identity: str, topic: str, payload: bytes, reason: str, source: str, at: float) -> Quarantined:
    return Quarantined(
        id=derived_id("qu", identity, reason),  # a message that is delivered twice is kept once
        topic=topic[:TOPIC_LIMIT],
        payload=payload[:SIZE_LIMIT],
        sha256=hashlib.sha256(payload).hexdigest(),
        size=len(payload),
        reason=reason,
        source=source[:TOPIC_LIMIT],
        at=at,
    )


def _text(payload: bytes) -> str:
    if len(payload) > SIZE_LIMIT:
        raise BadInput(f"the payload has {len(payload)} bytes; at most {SIZE_LIMIT} are read")
    if payload.startswith(b"\xef\xbb\xbf"):
        raise BadInput("the payload begins with a byte order mark; send UTF-8 without one")
    try:
        return payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"byte {error.start} is not UTF-8") from None


def _json(text: str) -> Value:
    _check_depth(text)
    keys = 0

    def pairs(items: list[tuple[str, Value]]) -> dict[str, Value]:
        nonlocal keys
        keys += len(items)
        if keys > KEY_LIMIT:
            raise BadInput(f"more than {KEY_LIMIT} keys")
        found = dict(items)
        if len(found) != len(items):
            raise BadInput("an object has the same key twice")
        return found

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=_refuse, parse_float=_float, parse_int=_int)
    except json.JSONDecodeError as error:
        raise BadInput(f"not JSON: {error.msg} at character {error.pos}") from None
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _check_depth(text: str) -> None:
    """Count brackets outside strings before the parser recurses into them."""
    depth, bare = 0, _STRING.sub("", text)
    if bare.count(",") >= VALUE_LIMIT:
        raise BadInput(f"more than {VALUE_LIMIT} values")
    for mark in bare:
        if mark in "[{":
            depth += 1
            if depth > DEPTH_LIMIT:
                raise BadInput(f"nested deeper than {DEPTH_LIMIT} levels")
        elif mark in "]}":
            depth -= 1


def _check_surrogates(value: Value) -> None:
    """`"\\ud800"` is JSON, but no text: it cannot be written as UTF-8 again."""
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise BadInput("a string has half of a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_surrogates(key)
            _check_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)


def _refuse(word: str) -> NoReturn:
    raise BadInput(f"{word} is not JSON")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadInput(f"the number {digits[:40]} is too large")
    return value


def _int(digits: str) -> int:
    if len(digits) > 20 or not INT_MIN <= int(digits) <= INT_MAX:
        raise BadInput(f"the number {digits[:40]} does not fit into 64 bits")
    return int(digits)


_ATOMS = json.JSONDecoder(parse_float=_float, parse_int=_int)
