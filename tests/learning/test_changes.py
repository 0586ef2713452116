"""The numbers of a change are those of the whole matrices, though these are never formed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from runtime.errors import Corrupt
from runtime.learning import changes
from runtime.learning.changes import Factors, Rows, Whole
from runtime.learning.jobs import Base
from runtime.learning.tensors import File
from tests.policy import tiny

PATH = "model.layers.3.self_attn.q_proj"


def factors(seed: int, rank: int, inputs: int = 12, outputs: int = 7) -> Factors:
    draw = np.random.default_rng(seed)
    return Factors(draw.normal(size=(rank, inputs)), draw.normal(size=(outputs, rank)))


def formed(update: Factors) -> Any:
    return update.up @ update.down


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9))
def test_factors_have_the_numbers_of_their_product(seed: int, rank: int, other_rank: int) -> None:
    """Also where the rank is above the smaller side."""
    now, before = factors(seed, rank), factors(seed + 1, other_rank)
    (found,) = changes.compare({PATH: now}, {PATH: before}, {PATH: 2.0})
    whole, whole_before = formed(now), formed(before)
    singular = np.linalg.svd(whole, compute_uv=False)
    p = singular[singular > 1e-12] / singular.sum()
    assert found.norm == pytest.approx(np.linalg.norm(whole), rel=1e-6)
    assert found.moved == pytest.approx(np.linalg.norm(whole - whole_before), rel=1e-6)
    assert found.share == pytest.approx(found.moved / 2.0)
    assert found.rank == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-5)
    cosine = (whole * whole_before).sum() / np.linalg.norm(whole) / np.linalg.norm(whole_before)
    assert found.similarity == pytest.approx(cosine, abs=1e-7)
    assert (found.layer, found.module) == (3, "self_attn.q_proj")


def test_a_version_is_wholly_alike_itself_and_has_not_moved() -> None:
    version = {PATH: factors(1, 4), "model.layers.4.mlp.up_proj": factors(2, 4)}
    summary = changes.summary(changes.compare(version, version, {}))
    assert summary["similarity"] == pytest.approx(1.0)
    assert summary["moved"] == pytest.approx(0.0, abs=1e-6)
    assert summary["share"] is None, "the size of the base weights is not known"


def test_the_whole_similarity_is_that_of_all_modules_laid_together() -> None:
    paths = [f"model.layers.{n}.mlp.up_proj" for n in range(3)]
    now, before = ({path: factors(n + seed, 2) for n, path in enumerate(paths)} for seed in (0, 100))
    flat, flat_before = (np.concatenate([formed(v[path]).ravel() for path in paths]) for v in (now, before))
    expected = flat @ flat_before / np.linalg.norm(flat) / np.linalg.norm(flat_before)
    assert changes.summary(changes.compare(now, before, {}))["similarity"] == pytest.approx(expected)


def test_compared_with_the_base_model_everything_that_was_added_moved() -> None:
    (found,) = changes.compare({PATH: factors(1, 3)}, {}, {})
    assert found.moved == found.norm > 0
    assert (found.similarity, found.before) == (None, 0.0)


def test_whole_deltas_and_output_rows_have_the_same_numbers() -> None:
    delta = formed(factors(5, 3)).astype(np.float32)
    (thin,), (whole,) = (changes.compare({PATH: u}, {}, {}) for u in (factors(5, 3), Whole(delta)))
    assert whole.norm == pytest.approx(thin.norm, rel=1e-5)
    assert whole.rank == pytest.approx(thin.rank, rel=1e-2)
    rows = {"lm_head": Rows(np.array([3, 9]), delta[:2])}, {"lm_head": Rows(np.array([9, 11]), delta[1:3])}
    (head,) = changes.compare(*rows, {})
    assert head.layer is None
    assert head.similarity == pytest.approx(
        float(delta[1] @ delta[1]) / np.linalg.norm(delta[:2]) / np.linalg.norm(delta[1:3]), rel=1e-5
    )


def test_no_update_has_no_directions() -> None:
    assert changes.effective_rank(np.zeros(4)) == 0.0
    assert changes.effective_rank(np.ones(4)) == pytest.approx(4.0)


def test_a_real_adapter_is_read_with_its_scale(tmp_path: Path) -> None:
    model = tiny.llama(tmp_path / "base")
    directory = tiny.adapter(model, tmp_path / "adapter", seed=1, layers=[2, 3])
    found = changes.read(directory)
    assert set(found) == {f"model.layers.{n}.self_attn.{m}_proj" for n in (2, 3) for m in ("q", "v")}
    file, config = File(directory / changes.FACTORS), json.loads((directory / changes.CONFIG).read_text())
    path = "base_model.model.model.layers.2.self_attn.q_proj"
    product = file.read(f"{path}.lora_B.weight") @ file.read(f"{path}.lora_A.weight") * config["lora_alpha"] / 4
    (here,) = [
        m for m in changes.compare(found, {}, norms(model, found)) if (m.layer, m.module) == (2, "self_attn.q_proj")
    ]
    assert here.norm == pytest.approx(np.linalg.norm(product), rel=1e-5)
    assert here.base == pytest.approx(
        np.linalg.norm(File(weights(model)).read("model.layers.2.self_attn.q_proj.weight"))
    )


def norms(model: Base, found: dict[str, Any]) -> dict[str, float]:
    return changes.base_norms(Path(model.directory), found)


def weights(model: Base) -> Path:
    return Path(model.directory) / "model.safetensors"


def test_every_type_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {str(t): torch.randn(3, 5).to(t) for t in (torch.float32, torch.float16, torch.bfloat16)}
    save_file({**tensors, "ids": torch.tensor([1, 2**40])}, tmp_path / "x.safetensors")
    file = File(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(file.read(name), tensor.float().numpy())
    assert file.read("ids").tolist() == [1, 2**40]


@pytest.mark.parametrize("raw", [b"", b"\xff" * 9, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{x"])
def test_what_is_no_safetensors_file_is_said_so(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(raw)
    with pytest.raises(Corrupt, match="cannot be read"):
        File(tmp_path / "x.safetensors")


def test_a_tensor_that_is_cut_off_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"whole": torch.ones(4)}, path)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(Corrupt, match="tensor whole is not whole"):
        File(path).read("whole")
