"""When the learner may begin by itself: hours of the day, and how busy the machine is."""

from __future__ import annotations

import re
from datetime import datetime, time

from runtime.errors import BadConfig

SPAN = re.compile(r"(\d\d?):(\d\d)\s*-\s*(\d\d?):(\d\d)")


def spans(hours: str) -> list[tuple[time, time]]:
    """`22:00-06:00, 12:00-13:00` -> (from, to) each. Raises BadConfig in one sentence."""
    found = []
    for part in filter(None, (part.strip() for part in hours.split(","))):
        match = SPAN.fullmatch(part)
        try:
            if match is None:
                raise ValueError
            first, minute, last, end = map(int, match.groups())
            found.append((time(first, minute), time(last % 24 if (last, end) == (24, 0) else last, end)))
        except ValueError:
            raise BadConfig(f"[learner] hours: {part!r} is no span of hours; write one such as 22:00-06:00") from None
    return found


def open_now(hours: str, local: datetime) -> bool:
    """True within one of the spans; one that ends before it begins crosses midnight. No spans = always."""
    now = local.time()
    within = [a <= now < b if a < b else now >= a or now < b for a, b in spans(hours)]
    return any(within) if within else True


def load_allows(limit: float, load: float) -> bool:
    """`limit` 0 = any load."""
    return not limit or load <= limit
