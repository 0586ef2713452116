"""A labelled history as a file -> rows, the catalogue they span, and outputs as actions and back."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from runtime.catalogue import REPLY, Catalogue, Schema, Tool
from runtime.errors import BadInput
from runtime.messages import Action, Message

REPLY_LENGTH = 40  # characters; outputs that are longer on average, and have spaces, are replies
NAME_KEYS = ("intent", "tool", "action", "name")
ARGUMENT_KEYS = ("slots", "arguments")
LINE_LIMIT = 64 * 1024  # characters


class Line(Message, frozen=True, kw_only=True):
    """One row of a history."""

    input: str
    output: str
    domain: str = ""


def read(path: Path) -> list[Line]:
    """JSONL, or CSV with a header. Raises BadInput naming file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start}); convert it first") from None
    lines = _csv(path, text) if path.suffix.lower() == ".csv" else _jsonl(path, text)
    if not lines:
        raise BadInput(f"{path} has no rows")
    return lines


def _jsonl(path: Path, text: str) -> list[Line]:
    lines = []
    for number, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        if len(row) > LINE_LIMIT:
            raise BadInput(f"{path}, line {number}: longer than {LINE_LIMIT} characters")
        try:
            value = msgspec.json.decode(row)
        except msgspec.MsgspecError as error:
            raise BadInput(f"{path}, line {number}: not valid JSON ({error})") from None
        lines.append(_line(path, number, value))
    return lines


def _csv(path: Path, text: str) -> list[Line]:
    rows = csv.DictReader(io.StringIO(text))
    return [_line(path, number, row) for number, row in enumerate(rows, start=2)]


def _line(path: Path, number: int, value: Any) -> Line:
    if not isinstance(value, dict):
        raise BadInput(f'{path}, line {number}: not an object; write {{"input": "...", "output": "..."}}')
    for key in ("input", "output"):
        if not isinstance(value.get(key), str) or not value[key].strip():
            raise BadInput(f"{path}, line {number}: {key!r} is missing or not text")
    domain = value.get("domain")
    return Line(input=value["input"], output=value["output"], domain=domain if isinstance(domain, str) else "")


def take(lines: Sequence[Line], limit: int | None, per_class: int | None) -> list[Line]:
    """The first `limit` rows, and of every output the first `per_class`."""
    seen: Counter[str] = Counter()
    taken = []
    for line in lines:
        seen[line.output] += 1
        if per_class is None or seen[line.output] <= per_class:
            taken.append(line)
    return taken[:limit]


class Codec:
    """Outputs of a file <-> actions of a catalogue. The catalogue comes from the stream, never from the holdout."""

    def __init__(self, lines: Sequence[Line]) -> None:
        outputs = [line.output for line in lines]
        self.structured = all(output.lstrip().startswith("{") for output in outputs)
        self.replies = not self.structured and _mean(len(o) for o in outputs) > REPLY_LENGTH
        if self.structured:
            self.catalogue = Catalogue(tools=_tools(lines))
        elif self.replies:
            self.catalogue = Catalogue(tools=(REPLY,))
        else:
            self._labels = sorted(set(outputs))
            self.words = all(label.split() == [label] for label in self._labels)
            self.catalogue = Catalogue(tools=_label_tools(self._labels, self.words))

    def action(self, output: str) -> Action:
        """The action an output stands for (which may be outside the catalogue)."""
        if self.structured:
            name, arguments = parts(output)
            return Action(tool=name, arguments=arguments)
        if self.replies:
            return Action(tool=REPLY.name, arguments={"text": output})
        return Action(tool=output) if self.words else Action(tool="answer", arguments={"label": output})


def parts(output: str) -> tuple[str, dict[str, Any]]:
    """`{"intent": "X", "slots": {...}}` -> ("X", {...}). Raises BadInput for other shapes."""
    try:
        value = json.loads(output)
    except ValueError as error:
        raise BadInput(f"the output {output[:80]!r} is not valid JSON: {error}") from None
    name_key = next((key for key in NAME_KEYS if isinstance(value.get(key), str)), None)
    if name_key is None:
        raise BadInput(f"the output {output[:80]!r} names no action; one of {', '.join(NAME_KEYS)} must")
    inner = next((value[key] for key in ARGUMENT_KEYS if isinstance(value.get(key), dict)), None)
    arguments = inner if inner is not None else {k: v for k, v in value.items() if k != name_key}
    return value[name_key].replace(" ", "_"), dict(sorted(arguments.items()))


def _tools(lines: Sequence[Line]) -> tuple[Tool, ...]:
    """One tool an intent; its arguments are the slots seen with it, optional unless always there."""
    seen: defaultdict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for line in lines:
        name, arguments = parts(line.output)
        seen[name].append((line.input, arguments))
    return tuple(_tool(name, rows) for name, rows in sorted(seen.items()))


def _tool(name: str, rows: list[tuple[str, dict[str, Any]]]) -> Tool:
    slots = sorted({slot for _, arguments in rows for slot in arguments})
    schemas = {slot: _schema([(text, a[slot]) for text, a in rows if slot in a]) for slot in slots}
    return Tool(name=name, arguments=schemas)


def _schema(values: list[tuple[str, Any]]) -> Schema:
    kinds: dict[str, Schema] = {}
    for _, value in values:
        if isinstance(value, bool):
            kinds["boolean"] = {"type": "boolean"}
        elif isinstance(value, int):
            kinds["integer"] = {"type": "integer"}
        elif isinstance(value, float):
            kinds["number"] = {"type": "number"}
        elif isinstance(value, list):
            kinds["array"] = {"type": "array", "items": {"type": "string"}}
        else:
            copied = all(isinstance(v, str) and v and v in text for text, v in values)
            kinds["string"] = {"type": "string", **({"copied": True} if copied and len(values) > 2 else {})}
    return next(iter(kinds.values())) if len(kinds) == 1 else {"anyOf": list(kinds.values())}


def _label_tools(labels: Sequence[str], words: bool) -> tuple[Tool, ...]:
    if words:
        return tuple(Tool(name=label) for label in labels)
    return (Tool(name="answer", arguments={"label": {"enum": list(labels)}}, required=("label",)),)


def actions_file(path: Path) -> list[Line]:
    """`--actions`: a JSON list of outputs, or a file with one output a line; as rows without inputs that matter."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    try:
        found = json.loads(text)
    except ValueError:
        found = [line for line in text.splitlines() if line.strip()]
    if not isinstance(found, list) or not found:
        raise BadInput(f"{path}: write a JSON list of outputs, or one output a line")
    outputs = [o if isinstance(o, str) else json.dumps(o, ensure_ascii=False) for o in found]
    return [Line(input="-", output=output) for output in outputs]


def _mean(values: Iterable[int]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
