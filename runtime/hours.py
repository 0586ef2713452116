"""Spans of the day as a person writes them: `22:00-06:00, 12:00-13:00`."""

from __future__ import annotations

import re
from datetime import datetime, time

SPAN = re.compile(r"(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)")


def spans(hours: str) -> list[tuple[time, time]]:
    """(from, to) each. Raises ValueError in one sentence."""
    return [_span(part.strip()) for part in hours.split(",") if part.strip()]


def _span(text: str) -> tuple[time, time]:
    match = SPAN.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        first, minute, last, end = map(int, match.groups())
        return time(first, minute), time(last % 24 if (last, end) == (24, 0) else last, end)
    except ValueError:
        raise ValueError(f"{text!r} is no span of hours; write one such as 22:00-06:00") from None


def within(hours: str, local: datetime) -> bool:
    """True in one of the spans; one that ends before it begins crosses midnight."""
    now = local.time()
    return any(a <= now < b if a < b else now >= a or now < b for a, b in spans(hours))
