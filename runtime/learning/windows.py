"""When the learner may begin by itself: hours of the day, and how busy the machine is."""

from __future__ import annotations

from datetime import datetime

from runtime.hours import spans, within


def open_now(hours: str, local: datetime) -> bool:
    """True within one of the spans. No spans = always."""
    return not spans(hours) or within(hours, local)


def load_allows(limit: float, load: float) -> bool:
    """`limit` 0 = any load."""
    return not limit or load <= limit
