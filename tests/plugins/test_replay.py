"""A recorded file is said again in its order; a broken line is named."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from plugins.replay import Replay, recorded
from runtime.config import BrokerConfig
from runtime.errors import BadConfig, BadInput
from runtime.messages import Feedback, Observation
from runtime.roles import Context

JSONL = """{"at": 100, "topic": "home/hall/light", "value": 3.5}

{"at": "1970-01-01T00:02:00+00:00", "topic": "home/hall", "value": {"light": 4, "presence": true}}
{"time": 130.5, "topic": "home/hall/speech", "payload": "good night"}
"""
CSV = "time,hall/light,hall/door\n2026-01-05 17:00:00,3.5,open\n2026-01-05 17:05:00,,closed\n"


async def _said(file: Path, speed: float = 0.0) -> list[Observation]:
    said: list[Observation] = []

    async def emit(message: Observation | Feedback) -> None:
        assert isinstance(message, Observation)
        said.append(message)

    replay = Replay(file=str(file), speed=speed)
    replay.context = Context(agent="a", data=file.parent, broker=BrokerConfig(mode="none"), zone=UTC)
    await replay.start()
    await replay.sense(emit)
    return said


async def test_jsonl_in_time_order_with_stable_ids(tmp_path: Path) -> None:
    file = tmp_path / "recorded.jsonl"
    file.write_text(JSONL)
    said = await _said(file, speed=1e6)
    assert [(o.topic, o.payload, o.at) for o in said] == [
        ("home/hall/light", b"3.5", 100.0),
        ("home/hall", b'{"light":4,"presence":true}', 120.0),
        ("home/hall/speech", b"good night", 130.5),
    ]
    assert [o.id for o in await _said(file)] == [o.id for o in said]
    assert len({o.id for o in said}) == 3


def test_csv_has_a_message_for_each_sensor_that_says_something(tmp_path: Path) -> None:
    file = tmp_path / "recorded.csv"
    file.write_text(CSV)
    said = list(recorded(file, "replay/", ZoneInfo("Europe/Vienna")))
    assert [(o.topic, o.payload) for o in said] == [
        ("replay/hall/light", b"3.5"),
        ("replay/hall/door", b"open"),
        ("replay/hall/door", b"closed"),
    ]
    assert said[2].at - said[0].at == 300
    assert said[0].at == 1767628800  # 17:00 in Vienna is 16:00 UTC


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("r.jsonl", '{"at": 1, "topic": "a", "value": 1}\nnonsense\n', r"r\.jsonl:2: not a line of JSON"),
        ("r.jsonl", "[1]\n", r"r\.jsonl:1: write an object such as"),
        ("r.jsonl", '{"at": 1, "topic": "a"}\n', r"r\.jsonl:1: neither `value` nor `payload`"),
        ("r.jsonl", '{"at": NaN, "topic": "a", "value": 1}\n', r"r\.jsonl:1: no time"),
        ("r.csv", "time,a\n5,1,2\n", r"r\.csv:2: it has not as many fields"),
        ("r.csv", "when,a\n5,1\n", r"r\.csv:2: no time"),
        ("r.csv", "time,a\n1,\udcff\n", r"r\.csv:\d: not readable as CSV"),
        (
            "r.jsonl",
            '{"at": 5, "topic": "a", "value": 1}\n{"at": 4, "topic": "a", "value": 1}\n',
            "sort the file by time",
        ),
    ],
)
async def test_a_broken_line_is_named(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadInput, match=complaint):
        await _said(file)


async def test_a_missing_file_and_a_bad_speed_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="there is no file"):
        await _said(tmp_path / "none.jsonl")
    with pytest.raises(BadConfig, match="speed must be 0"):
        Replay(file="x", speed=-1.0)
