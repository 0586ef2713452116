"""What a person ought to know of what was lost, never came, or could be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def alarms(found: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """From the status: `kind` in a word or two, `text` in a sentence."""
    if found["lost"]:
        yield {"kind": "lost", "text": found["lost"]}
    for gap in found["missing"]:
        yield {"kind": "missing", "text": _never_came(**gap)}
    for notice in found["notices"]:
        yield {"kind": "notice", "text": notice["text"]}
    for name, count in found["shed"].items():
        yield {"kind": "let go", "text": f"{count} messages of {name} in the last hour, because too many came"}


def _never_came(*, producer: str, boot: str, first: int, last: int, **_: Any) -> str:
    if first == last:
        return f"message {first} of {producer} (boot {boot}) never came"
    return f"messages {first} to {last} of {producer} (boot {boot}) never came, all of them or some"
