"""Sensor: a recorded file in time order, accelerated. What a house said last month is said again.

JSONL: one message a line, `{"at": ..., "topic": ..., "value": ...}` (`payload` for raw text); CSV: a column of times and
one of values per sensor, or the columns `at`, `topic`, `value`. `at` is seconds since the epoch or an ISO 8601 time,
without an offset in the agent's time zone. Ids come from the file and the line, so a restart repeats nothing.
"""

from __future__ import annotations

import asyncio
import csv
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import msgspec
import structlog

from runtime.errors import BadConfig, BadInput, NotFound
from runtime.messages import Observation, derived_id
from runtime.roles import Emit, Sensor

TIME_COLUMNS = ("at", "time", "timestamp", "datetime", "date")
log = structlog.get_logger("replay")


@dataclass
class Replay(Sensor):
    """[[plugin]]
    use = "plugins.replay:Replay"
    file = "recorded.jsonl"
    speed = 60.0       # recorded seconds a second; 0 = as fast as the journal takes them
    topic = "replay/"  # goes before every sensor name
    longest = 5.0      # real seconds a gap in the recording takes at most
    """

    file: str
    speed: float = 0.0
    topic: str = ""
    longest: float = 60.0

    def __post_init__(self) -> None:
        if not self.speed >= 0 or not math.isfinite(self.speed):
            raise BadConfig("plugins.replay: speed must be 0 (as fast as possible) or a positive number")

    async def start(self) -> None:
        if not Path(self.file).is_file():
            raise BadConfig(f"plugins.replay: there is no file {self.file}; set `file` to a recorded JSONL or CSV file")

    async def sense(self, emit: Emit) -> None:
        before: float | None = None
        said = 0
        for message in recorded(Path(self.file), self.topic, self.context.zone, self.name):
            if before is not None and message.at < before:
                raise BadInput(f"{self.file}: {message.source} is older than the line before; sort the file by time")
            if before is not None and self.speed:
                await asyncio.sleep(min((message.at - before) / self.speed, self.longest))
            before = message.at
            with suppress(BadInput, NotFound):  # it is in quarantine with its reason
                await emit(message)
            said += 1
        log.info("replayed", file=self.file, messages=said)


def recorded(file: Path, topic: str, zone: tzinfo, source: str = "replay") -> Iterator[Observation]:
    """The messages of a file in its order. Raises BadInput naming file and line."""
    rows = _csv(file) if file.suffix.lower() == ".csv" else _jsonl(file)
    for line, row in rows:
        where = f"{file}:{line}"
        at = _at(row, zone, where)
        for name, payload in _messages(row, where):
            yield Observation(
                id=derived_id("ob", "replay", file.name, str(line), name),
                topic=f"{topic}{name}",
                payload=payload,
                at=at,
                source=f"{source} line {line}",
            )


def _jsonl(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadInput(f"{file}:{number}: not a line of JSON: {error}") from None
            if not isinstance(row, dict) or not isinstance(row.get("topic"), str):
                raise BadInput(
                    f'{file}:{number}: write an object such as {{"at": 0, "topic": "home/hall", "value": 1}}'
                )
            yield number, row


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        try:
            for row in rows:
                if None in row or None in row.values():
                    raise BadInput(f"{file}:{rows.line_num}: it has not as many fields as the heading")
                yield rows.line_num, dict(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadInput(f"{file}:{rows.line_num}: not readable as CSV: {error}") from None


def _messages(row: dict[str, Any], where: str) -> Iterator[tuple[str, bytes]]:
    """Topic and payload of each message in a row: one, or one per sensor column."""
    if "topic" in row:
        if "payload" in row:
            yield row["topic"], str(row["payload"]).encode()
        elif "value" in row:
            yield row["topic"], _payload(row["value"])
        else:
            raise BadInput(f"{where}: neither `value` nor `payload`")
        return
    for name, value in row.items():
        if name not in TIME_COLUMNS and value != "":
            yield name, _payload(value)


def _payload(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


def _at(row: dict[str, Any], zone: tzinfo, where: str) -> float:
    found = next((row[name] for name in TIME_COLUMNS if name in row), None)
    with suppress(TypeError, ValueError):
        number = float(found)  # type: ignore[arg-type]
        if math.isfinite(number):
            return number
    try:
        moment = datetime.fromisoformat(str(found))
    except ValueError:
        raise BadInput(f"{where}: no time; one of {', '.join(TIME_COLUMNS)} must be seconds or ISO 8601") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()
