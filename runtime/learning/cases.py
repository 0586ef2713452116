"""A file of situations -> cases that every candidate must pass: what it has to do there, or must never do.

[[case]]
scope = "kitchen"
text = "the smoke detector is sounding"
required = "siren on"                  # one action, as the catalogue writes it, or
forbidden = ["oven on", "nothing"]     # several
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from runtime.errors import BadConfig
from runtime.messages import Message

LARGEST = 1 << 20  # bytes of a file


class Case(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One situation. `required`, if given, is the only right action; `forbidden` ones are always wrong."""

    scope: str
    text: str
    required: str = ""
    forbidden: tuple[str, ...] = ()


def read(name: str) -> tuple[Case, ...]:
    """The cases of a file; "" = none. Raises BadConfig naming file and case."""
    if not name:
        return ()
    path = Path(name)
    try:
        if path.stat().st_size > LARGEST:
            raise BadConfig(f"[gate] must_pass: {path} has more than {LARGEST >> 20} MiB; keep to a few hundred cases")
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"[gate] must_pass: {path} cannot be read: {error}") from None
    rows = found.get("case")
    if not isinstance(rows, list) or not rows or found.keys() != {"case"}:
        raise BadConfig(f"[gate] must_pass: {path} has no [[case]]; see runtime/learning/cases.py for one")
    return tuple(_case(path, number, row) for number, row in enumerate(rows, 1))


def _case(path: Path, number: int, row: object) -> Case:
    try:
        case = msgspec.convert(row, Case)
    except msgspec.ValidationError as error:
        raise BadConfig(f"[gate] must_pass: {path}, case {number}: {error}") from None
    if not case.required and not case.forbidden:
        raise BadConfig(f"[gate] must_pass: {path}, case {number} says neither what is required nor what is forbidden")
    return case


def broken(cases: Sequence[Case], says: Callable[[str, str], str | None]) -> Iterator[str]:
    """A sentence for every case that is not passed. `says(scope, text)` is what is done there, None without such a scope:
    what cannot be asked is not passed."""
    for case in cases:
        said = says(case.scope, case.text)
        where = f"{case.scope}: {case.text!r}"
        if said is None:
            yield f"{where} (there is no such scope)"
        elif case.required and said != case.required:
            yield f"{where} -> {said}, where {case.required} is required"
        elif said in case.forbidden:
            yield f"{where} -> {said}, which is forbidden"
