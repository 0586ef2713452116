"""An adapter that does not fit the model is refused with a sentence when it is loaded, not found out in the middle of a decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.errors import Corrupt, Unavailable
from runtime.learning.jobs import Base
from runtime.policy import adapter as adapters
from runtime.policy.backbone import Backbone
from tests.policy import tiny

PATH = "model.layers.3.self_attn.q_proj"


@pytest.fixture(scope="module")
def backbone(model: Base) -> Backbone:
    return Backbone(model)


@pytest.mark.parametrize("shape", [(32,), (16, 32), (32, 33), (0, 32)])
def test_a_delta_has_the_shape_of_its_parameter(backbone: Backbone, tmp_path: Path, shape: tuple[int, ...]) -> None:
    adapters.write_delta(tmp_path, {f"{PATH}.weight": torch.zeros(shape)})
    with pytest.raises(Unavailable, match="is for another model"):
        backbone.load("x", tmp_path)


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        (torch.tensor([1 << 40]), torch.zeros(1, 32)),
        (torch.tensor([-1]), torch.zeros(1, 32)),
        (torch.tensor([1, 2]), torch.zeros(1, 32)),
        (torch.tensor([1]), torch.zeros(1, 31)),
        (torch.tensor([[1]]), torch.zeros(1, 32)),
        (torch.tensor([1.5]), torch.zeros(1, 32)),
    ],
)
def test_a_head_has_rows_for_tokens_that_there_are(
    backbone: Backbone, tmp_path: Path, ids: torch.Tensor, rows: torch.Tensor
) -> None:
    adapters.write_head(tmp_path, ids, rows)
    with pytest.raises((Unavailable, Corrupt), match=r"is for another model|whole numbers"):
        backbone.load("x", tmp_path)


@pytest.mark.parametrize(
    "change", [{"r": 0}, {"r": 2, "lora_alpha": 16}, {"r": "4"}, {"lora_alpha": 1e300}, {"lora_alpha": None}]
)
def test_a_configuration_says_what_the_factors_are(
    backbone: Backbone, model: Base, tmp_path: Path, change: dict[str, Any]
) -> None:
    config = tiny.adapter(model, tmp_path, 1) / adapters.LORA_CONFIG
    backbone.load("whole", tmp_path)
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(Corrupt, match=r"rank"):
        backbone.load("x", tmp_path)


@pytest.mark.parametrize("text", ["[]", '"x"', "[" * 100_000, "\x00"])
def test_a_configuration_is_a_json_object(backbone: Backbone, model: Base, tmp_path: Path, text: str) -> None:
    (tiny.adapter(model, tmp_path, 1) / adapters.LORA_CONFIG).write_text(text)
    with pytest.raises(Corrupt, match="cannot be read"):
        backbone.load("x", tmp_path)
