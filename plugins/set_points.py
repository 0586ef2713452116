"""What a device reports, compared with what it was set to: words without case, numbers within half a step. For critics."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.messages import Scalar

SWITCH = {"true": "on", "false": "off"}  # how some devices say it


def number(value: Scalar) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except ValueError:
        return None


def same(one: Scalar, other: Scalar, step: float) -> bool:
    """Equal, or numbers less than half a step apart; words are compared without case (`ON`, `on`)."""
    a, b = number(one), number(other)
    if a is not None and b is not None:
        return abs(a - b) < step / 2
    return _word(one) == _word(other)


def _word(value: Scalar) -> str:
    word = str(value).strip().lower()
    return SWITCH.get(word, word)


def between(before: Scalar, value: Scalar, wanted: Scalar) -> bool:
    a, b, c = number(before), number(value), number(wanted)
    return a is not None and b is not None and c is not None and min(a, c) < b < max(a, c)


def set_point(value: Scalar, step: float, values: Iterable[Scalar]) -> Scalar:
    """The set-point a person must have meant: one of the known values, else a number snapped to the step."""
    for known in values:
        if same(known, value, step):
            return known
    found = number(value)
    if found is None:
        return _word(value)
    snapped = float(round(round(found / step) * step, 6))
    return int(snapped) if snapped.is_integer() else snapped
