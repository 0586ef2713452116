"""A pruned base model is the same model with zeros in its linear layers, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM

from runtime.errors import BadConfig, CorrigibleError, Unavailable
from runtime.learning.sparsity import magnitude, prune_base
from tests.policy.tiny import FAMILIES


@settings(deadline=None)
@given(rows=st.integers(1, 12), columns=st.integers(1, 12), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_the_smallest_go_and_the_rest_stays(rows: int, columns: int, share: float, seed: int) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    state = {"a": weight, "b": weight.clone(), "norm": torch.full((3,), 1e-9)}
    found = magnitude(state, share, {"a", "norm"})
    gone = found["a"] == 0
    assert int(gone.sum()) == round(share * weight.numel())
    assert_close(found["a"][~gone], weight[~gone])
    if gone.any() and not gone.all():
        assert weight[gone].abs().max() <= weight[~gone].abs().min()
    assert found["b"] is state["b"]
    assert found["norm"] is state["norm"]
    assert (weight != 0).all()


def model(name: str, directory: Path, shard: str = "50GB") -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, vocab_size=200, **FAMILIES[name])
    AutoModelForCausalLM.from_config(config).save_pretrained(directory, max_shard_size=shard)
    (directory / "tokenizer.json").write_text("{}")
    return directory


def weights(directory: Path) -> dict[str, Any]:
    return {name: tensor for path in directory.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize(("name", "shard"), [("llama", "50GB"), ("llama", "40KB"), ("gpt2", "50GB"), ("qwen3", "50GB")])
def test_only_linear_layers_have_zeros_and_the_model_loads(name: str, shard: str, tmp_path: Path) -> None:
    source = model(name, tmp_path / "model", shard)
    found = prune_base(source, tmp_path / "new" / "pruned", 0.5)
    before, after = weights(source), weights(tmp_path / "new" / "pruned")
    assert before.keys() == after.keys()
    zeros = {path: (tensor == 0).float().mean().item() for path, tensor in after.items()}
    linear = {path for path in after if any(part in path for part in ("proj", "c_attn", "c_fc")) and "bias" not in path}
    assert linear
    for path, share in zeros.items():
        assert share == pytest.approx(0.5, abs=1e-3) if path in linear else torch.equal(before[path], after[path]), path
    total = sum(tensor.numel() for tensor in after.values())
    assert found == pytest.approx(sum(int((t == 0).sum()) for t in after.values()) / total)
    assert {p.name for p in source.iterdir()} == {p.name for p in (tmp_path / "new" / "pruned").iterdir()}
    AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "pruned")(torch.tensor([[1, 2]]))


def test_a_checkpoint_of_the_body_alone_is_pruned_too(tmp_path: Path) -> None:
    source = model("gpt2", tmp_path / "model")  # as GPT-2 itself is published: `h.0...`, not `transformer.h.0...`
    bare = {name.removeprefix("transformer."): tensor for name, tensor in weights(source).items()}
    save_file(bare, source / "model.safetensors", {"format": "pt"})
    assert prune_base(source, tmp_path / "pruned", 0.5) > 0.3


def test_nothing_that_can_carry_code_comes_along(tmp_path: Path) -> None:
    source = model("llama", tmp_path / "model")
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "chat").mkdir()
    (source / "chat" / "template.jinja").write_text("x")
    prune_base(source, tmp_path / "pruned", 0.1)
    assert not (tmp_path / "pruned" / "pytorch_model.bin").exists()
    assert (tmp_path / "pruned" / "chat" / "template.jinja").read_text() == "x"


def test_a_share_of_nothing_is_the_same_model(tmp_path: Path) -> None:
    source = model("llama", tmp_path / "model")
    prune_base(source, tmp_path / "pruned", 0)
    assert_close(weights(tmp_path / "pruned"), weights(source))


@pytest.mark.parametrize("share", [-0.1, 1, 30, float("nan")])
def test_a_share_that_is_none_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="give a number from 0 to below 1"):
        prune_base(tmp_path, tmp_path / "pruned", share)


def broken(tmp_path: Path, what: str) -> tuple[Path, Path]:
    source, target = model("llama", tmp_path / "model"), tmp_path / "pruned"
    weight, config = source / "model.safetensors", source / "config.json"
    if what == "cut":
        weight.write_bytes(weight.read_bytes()[:1000])
    if what == "none":
        weight.rename(source / "pytorch_model.bin")
    if what == "config":
        config.write_text(json.dumps({"model_type": "no such architecture"}))
    if what == "vision":
        config.write_text(json.dumps({"model_type": "vit"}))
    if what == "missing":
        shutil.rmtree(source)
    if what == "exists":
        target.mkdir()
    return source, source / "inside" if what == "inside" else target


@pytest.mark.parametrize(
    ("what", "kind", "says"),
    [
        ("cut", Unavailable, "model.safetensors cannot be read"),
        ("none", Unavailable, r"no \*\.safetensors file; give a directory in Hugging Face format"),
        ("missing", Unavailable, "has no config.json"),
        ("config", BadConfig, "config.json is of no language model"),
        ("vision", BadConfig, "config.json is of no language model"),
        ("exists", BadConfig, "exists already; name a directory that does not"),
        ("inside", BadConfig, "name a directory outside it"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing(
    what: str, kind: type[CorrigibleError], says: str, tmp_path: Path
) -> None:
    source, target = broken(tmp_path, what)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind, match=says) as caught:
        prune_base(source, target, 0.3)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
