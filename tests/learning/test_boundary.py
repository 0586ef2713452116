"""Training from kept hidden states and packed rows is the same training: same loss, same gradient as the plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from runtime.errors import BadConfig
from runtime.learning import boundary
from runtime.learning.boundary import Boundary
from runtime.learning.candidate import LoraCandidate
from runtime.learning.jobs import Base
from runtime.learning.run import Run
from runtime.learning.states import States
from tests.learning.test_train import job_directory
from tests.policy import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    return {name: tiny.family(name, tmp_path_factory.mktemp(name)) for name in tiny.FAMILIES}


def prepared(directory: Path, model: Base, **settings: Any) -> Run:
    """A run whose candidate is not zero."""
    made = Run(job_directory(directory, model, **{"layers": "top:2", "alpha": 16, **settings}))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.candidate.parameters:
            parameter.normal_(std=0.1)
    made._keep(made.forward)
    return made


def ours(run: Run) -> tuple[float, list[Tensor]]:
    loss = run.fit._loss(range(len(run.items)))
    return loss.item(), list(torch.autograd.grad(loss, run.candidate.parameters))


def plain(run: Run, adapter: Path) -> tuple[float, list[Tensor]]:
    """The definition: PEFT on the model of transformers, every example alone, its whole text, all logits."""
    from peft import PeftModel

    base = AutoModelForCausalLM.from_pretrained(
        run.job.base.directory, dtype=torch.float32, attn_implementation="eager"
    )
    model = PeftModel.from_pretrained(base, adapter, is_trainable=True).eval()
    total = torch.zeros(())
    for item, prefix in zip(run.items, run.prefixes, strict=True):
        logits = model(torch.tensor([[*prefix, *item.ids]])).logits[0, len(prefix) :].float()
        for position, token, rivals in item.steps:
            logs = logits[position][list(rivals)] if rivals else logits[position]
            place = rivals.index(token) if rivals else token
            total = total - item.weight * logs.log_softmax(-1)[place]
    total.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert isinstance(run.candidate, LoraCandidate)
    names = [f"base_model.model.{path}.lora_{part}.default.weight" for path in run.candidate._factors for part in "AB"]
    return total.item(), [found[name] for name in names]


def difference(gradient: list[Tensor], wanted: list[Tensor]) -> float:
    """Relative, over all parameters."""
    a, b = torch.cat([g.flatten() for g in gradient]), torch.cat([g.flatten() for g in wanted])
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("layers", ["top:2", "all"])
def test_the_gradient_is_that_of_the_plain_loop(
    name: str, layers: str, models: dict[str, Base], tmp_path: Path
) -> None:
    run = prepared(tmp_path / "job", models[name], layers=layers)
    assert (run.candidate.cut > 0) == (layers == "top:2")
    run.candidate.save(tmp_path / "adapter")
    (here, gradient), (there, wanted) = ours(run), plain(run, tmp_path / "adapter")
    assert here == pytest.approx(there, rel=1e-5)
    assert difference(gradient, wanted) < 1e-5


@pytest.mark.parametrize("kind", ["full_delta", "head_only"])
def test_kept_states_change_no_gradient_of_the_other_kinds(kind: str, models: dict[str, Base], tmp_path: Path) -> None:
    run = prepared(tmp_path / "job", models["llama"], adapter=kind)
    here, gradient = ours(run)
    run.fit._forward = Boundary(run.backbone, 0, States())
    there, wanted = ours(run)
    assert here == pytest.approx(there, rel=1e-5)
    assert difference(gradient, wanted) < 1e-5


def test_states_outlive_the_run(models: dict[str, Base], tmp_path: Path) -> None:
    first = with_states(tmp_path / "a", models["llama"], tmp_path / "states")
    count = first._keep(first.forward)
    assert count > 0
    second = with_states(tmp_path / "b", models["llama"], tmp_path / "states")
    assert second._keep(second.forward) == 0
    assert ours(second)[0] == pytest.approx(ours(first)[0], rel=1e-6)
    changed = with_states(tmp_path / "c", models["llama"], tmp_path / "states", layers="top:1")
    assert changed._keep(changed.forward) == count  # another cut, other states


def with_states(directory: Path, model: Base, states: Path, **settings: Any) -> Run:
    run = Run(job_directory(directory, model, states=states, **{"layers": "top:2", **settings}))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in run.candidate.parameters:
            parameter.normal_(std=0.1)
    return run


def test_an_unknown_architecture_is_trained_whole_or_not(tmp_path: Path) -> None:
    from tests.policy.test_families import neox

    model = neox(tmp_path / "model")
    with pytest.raises(BadConfig, match='set layers = "all"'):
        prepared(tmp_path / "top", model, layers="top:1")
    run = prepared(tmp_path / "all", model, layers="all")
    assert isinstance(run.forward, boundary.Plain)
    run.candidate.save(tmp_path / "adapter")
    (here, gradient), (there, wanted) = ours(run), plain(run, tmp_path / "adapter")
    assert here == pytest.approx(there, rel=1e-5)
    assert difference(gradient, wanted) < 1e-5
