"""What may come in: whatever the bytes are, the answer is a finite JSON value, a plain string or BadInput."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import payload
from runtime.errors import BadInput
from runtime.messages import Action, Feedback, Observation

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INTEGERS = st.integers(payload.INT_MIN, payload.INT_MAX)
ATOMS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=20
)


@given(VALUES, st.booleans())
def test_json_comes_back_as_it_was(value: Any, ascii_only: bool) -> None:
    assert payload.parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_give_a_storable_value_or_bad_input(raw: bytes) -> None:
    try:
        value = payload.parse_scalar(raw)
    except BadInput:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@given(
    st.lists(
        st.sampled_from(['"', "\\", "\\u", "d800", "{", "}", "[", "]", ":", ",", "1", "e", "9", "-", "a", "\\n"]),
        max_size=40,
    )
)
def test_nearly_json_never_raises_anything_else(parts: list[str]) -> None:
    try:
        json.dumps(payload.parse("".join(parts).encode()), allow_nan=False, ensure_ascii=False).encode()
    except BadInput:
        return


@pytest.mark.parametrize(
    "raw",
    [
        b"NaN", b"nan", b"Infinity", b"-inf", b"1e999", b'{"value": NaN}', b'{"value": -Infinity}', b'{"value": 1e999}',
        b"9223372036854775808", b'{"value": ' + b"9" * 5000 + b"}", b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "b": 1}}',
        b'"\\ud800"', b'{"\\udc00": 1}', b"\xff\xfe", b"\xed\xa0\x80", b'{"a": 1', b'"open', b"[1,]", b"", b"  \n", b"a\x00b",
        b"[" * 33 + b"]" * 33, b"[" * 60000, b'{"a":' * 40 + b"1" + b"}" * 40, b'"' + b"x" * 65536 + b'"',
        json.dumps({str(n): n for n in range(1001)}).encode(), json.dumps([{"a": 1}] * 1001).encode(),
    ],
)  # fmt: skip
def test_what_breaks_a_limit_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInput):
        payload.parse_scalar(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"21.5", 21.5), (b"-3", -3), (b"true", True), (b"null", None), (b" 7\n", 7), (b'"on"', "on"), (b"[1, 2]", [1, 2]),
        (b"ON", "ON"), (b"half open", "half open"), (b"12:30", "12:30"), (b"007", "007"), (b"NaNcy is here", "NaNcy is here"),
        (b"+5", "+5"), ("21 °C".encode(), "21 °C"), (b"True", "True"), (b'"\\ud83d\\ude00"', "😀"), (b'"[[["', "[[["),
        (b"[" * 32 + b"]" * 32, json.loads("[" * 32 + "]" * 32)), (b'"' + b"[" * 1000 + b'"', "[" * 1000),
        (b"9223372036854775807", 2**63 - 1), (b"-9223372036854775808", -(2**63)), (b"1e300", 1e300),
    ],
)  # fmt: skip
def test_numbers_words_and_json_are_read(raw: bytes, value: object) -> None:
    assert payload.parse_scalar(raw) == value
    assert type(payload.parse_scalar(raw)) is type(value)


def test_plain_words_are_not_json() -> None:
    with pytest.raises(BadInput, match="not JSON"):
        payload.parse(b"ON")


def test_quarantine_keeps_small_payloads_whole_and_large_ones_by_hash() -> None:
    small = Observation(id="a:1", topic="t", payload=b"\xff", at=1.0, source="mqtt")
    large = Observation(id="a:2", topic="t" * 5000, payload=b"x" * 100000, at=1.0)
    kept = payload.quarantined(small, "byte 0 is not UTF-8")
    assert (kept.payload, kept.size, kept.source, kept.reason) == (b"\xff", 1, "mqtt", "byte 0 is not UTF-8")
    kept = payload.quarantined(large, "too large")
    assert (len(kept.payload), kept.size, len(kept.topic)) == (65536, 100000, 1000)
    assert kept.sha256 == hashlib.sha256(large.payload).hexdigest()
    assert payload.quarantined(large, "too large").id == kept.id  # redelivered, still one row


def test_quarantined_feedback_can_be_read_again() -> None:
    feedback = Feedback(
        id="fb-1", decision_id="de-1", kind="rating", source="mqtt", at=2.0, rating=math.nan, action=Action(tool="x")
    )
    kept = payload.quarantined_feedback(feedback, "a rating is a number from -1 to 1")
    assert json.loads(kept.payload)["decision_id"] == "de-1"
    assert (kept.topic, kept.source, kept.at) == ("feedback", "mqtt", 2.0)
