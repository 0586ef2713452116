"""Where the base model comes from, and the one sentence when it comes from nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch

from runtime.errors import Unavailable
from runtime.learning.jobs import Base
from runtime.policy import base, worker
from runtime.policy.backbone import Backbone


def test_the_default_is_plain_safetensors_from_the_wheel() -> None:
    found = base.resolve("smollm2", "float32")
    assert base.resolve("smollm2", "float32") == found
    weights = safetensors.torch.load_file(Path(found.directory) / "model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) > 130_000_000


def test_a_directory_is_taken_as_it_is(model: Base) -> None:
    assert base.resolve(model.directory, "float32") == model


@pytest.mark.parametrize("wanted", ["./nowhere", "/nowhere/at/all", "~/nowhere"])
def test_a_missing_directory_is_one_sentence(wanted: str) -> None:
    with pytest.raises(Unavailable, match=r"^\[policy\] model: .* has no config\.json; give a directory"):
        base.resolve(wanted, "auto")


def test_other_weight_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(Unavailable, match=r"no \*\.safetensors"):
        base.resolve(str(tmp_path), "float32")


def test_a_model_that_cannot_be_read_is_one_sentence(model: Base, tmp_path: Path) -> None:
    for path in Path(model.directory).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(Unavailable, match="cannot load the model in"):
        Backbone(Base(directory=str(tmp_path), revision="x", dtype="float32"))


def test_the_sentence_encoder_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SENTENCES_WHEEL", "nowhere_to_be_found")
    with pytest.raises(Unavailable, match=r"features: the sentence encoder is not installed: pip install"):
        base.resolve(base.SENTENCES, "float32")


def test_what_compares_situations_must_be_an_encoder(model: Base) -> None:
    with pytest.raises(Unavailable, match=r"^\[policy\] features: .* is no encoder"):
        worker.looker({"features": model.directory, "threads": 1})
    assert worker.looker({"features": base.OWN, "threads": 1}) is None
    with pytest.raises(Unavailable, match=r"'sentence' is no directory; write `model`, `sentences` or"):
        worker.looker({"features": "sentence", "threads": 1})
