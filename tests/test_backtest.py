"""The backtest: broken rows are named, outputs become actions, and a small history goes through the whole loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.backtest import Options, data, run
from runtime.backtest.data import Codec, Line
from runtime.backtest.session import learning_points
from runtime.catalogue import REPLY
from runtime.errors import BadInput
from runtime.learning.sentences import available
from runtime.messages import Action

ROWS = [
    ("my card has not arrived", "card"), ("where is my new card", "card"), ("the card is late", "card"),
    ("send the money to my sister", "transfer"), ("move money to savings", "transfer"), ("transfer ten euros", "transfer"),
    ("I forgot my password", "login"), ("the app does not let me in", "login"), ("reset my login", "login"),
]  # fmt: skip


def history(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"input": i, "output": o, "domain": "desk"}) + "\n" for i, o in rows))
    return path


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "not valid JSON"),
        ('"text"', "not an object"),
        ('{"input": "x"}', "'output' is missing"),
        ('{"input": 3, "output": "x"}', "'input' is missing or not text"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "stream.jsonl"
    path.write_text('{"input": "a", "output": "b"}\n' + line + "\n")
    with pytest.raises(BadInput, match=r"stream\.jsonl, line 2: .*" + reason):
        data.read(path)


def test_csv_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "stream.csv"
    path.write_text('input,output\n"a, b",card\n')
    assert data.read(path) == [Line(input="a, b", output="card")]


def test_labels_replies_and_structures_are_told_apart() -> None:
    labels = Codec([Line(input=i, output=o) for i, o in ROWS])
    assert [tool.name for tool in labels.catalogue.tools] == ["card", "login", "transfer"]
    spaced = Codec([Line(input="x", output="late card")])
    assert spaced.catalogue.render(spaced.action("late card")) == "answer late card"
    replies = Codec([Line(input="x", output="You can reach us at any time by writing to the address below.")])
    assert replies.catalogue.tools == (REPLY,)


def test_structured_outputs_become_tools_with_optional_arguments() -> None:
    rows = [
        ("turn on the hall", '{"intent": "On", "slots": {"area": "hall"}}'),
        ("turn on the lamp for 5 minutes", '{"intent": "On", "slots": {"name": "lamp", "minutes": 5}}'),
        ("off", '{"intent": "Off", "slots": {}}'),
    ]
    codec = Codec([Line(input=i, output=o) for i, o in rows])
    for _, output in rows:
        action = codec.catalogue.check(codec.action(output))
        assert codec.catalogue.parse(codec.catalogue.render(action)) == action
    assert codec.action(rows[1][1]) == Action(tool="On", arguments={"minutes": 5, "name": "lamp"})


def test_learning_points_grow_and_end_with_the_stream() -> None:
    assert learning_points(600, None) == {100, 200, 400, 600}
    assert learning_points(50, None) == {50}
    assert learning_points(100, 40) == {40, 80, 100}


async def test_a_history_goes_through_the_whole_loop(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[learner]\nlayers = "top:4"\nepochs = 2\nmin_steps = 10\n[gate]\nmin_recall = 0.0\n')
    report = await run(
        Options(
            stream=history(tmp_path / "stream.jsonl", ROWS),
            holdout=history(
                tmp_path / "holdout.jsonl", [("my card is not here", "card"), ("a gift", "nobody taught this")]
            ),
            report=tmp_path / "report.json",
            config=config,
        ),
        told=lambda text: None,
    )
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert report["stream"] == {"events": 9, "actions": 3}
    assert [point["events"] for point in report["points"]] == [0, 9]
    assert report["points"][0]["adapter"] == "base"
    assert report["points"][-1]["adapter"] != "base"
    assert report["cycles"][0]["verdict"] == "provisional"
    assert report["points"][-1]["accuracy"] <= 0.5, "an output outside the catalogue counts as an error"
    assert report["swaps"]["count"] == 1
    assert (report["swaps"]["refused_decisions"], report["swaps"]["mixed_decisions"]) == (0, 0)
    assert report["decision_ms"]["p95_while_training"] is not None
    assert (report["baselines"]["encoder"] is None) == (not available())
    assert set(report["calibration"]) == {"ece", "brier", "memory_off"}
    assert {"asked", "answered_accuracy", "helped_accuracy"} <= set(report["abstention"])
    found = report["satisfaction"]
    assert (found["judged"], found["contacts"], found["rating_trend"]["direction"]) == (9, 9, "too few to tell")
    assert found["override_rate"] == pytest.approx(1 - report["prequential"]["accuracy"])
    assert found["repeated_contacts"] is not None
    assert [version["adapter"] for version in found["versions"]] == ["base"]
    assert set(report["pss_mb"]) == {"daemon", "policy", "trainer"}
