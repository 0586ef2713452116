"""Training from kept hidden states is the same training: same loss, same gradient, as through the whole model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from runtime.learning import boundary, objectives, train
from runtime.learning.jobs import Base
from tests.learning.test_train import job_directory
from tests.policy import tiny

TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn", "c_fc"]}


@pytest.fixture(params=["llama", "gpt2"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> train.Run:
    make: Callable[[Path], Base] = getattr(tiny, request.param)
    directory = job_directory(
        tmp_path / "job", make(tmp_path / "model"), layers="top:2", targets=TARGETS[request.param]
    )
    made = train.Run(directory)
    made._wrap()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made._parameters():
            parameter.normal_(std=0.1)
    made.backbone.peft.eval()
    return made


def loss_and_gradient(run: train.Run, forward: objectives.Forward) -> tuple[float, Tensor]:
    parameters = run._parameters()
    loss = objectives.loss(run.backbone, forward, run.prefixes[0], run.items)
    return loss.item(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def test_the_gradient_is_that_of_the_whole_model(run: train.Run) -> None:
    kept = run._forward()
    assert isinstance(kept, boundary.Boundary)
    here, gradient = loss_and_gradient(run, kept)
    there, wanted = loss_and_gradient(run, objectives.plain(run.backbone))
    assert here == pytest.approx(there, rel=1e-5)
    assert float((gradient - wanted).norm() / wanted.norm()) < 1e-5


def test_the_model_is_whole_again_afterwards(run: train.Run) -> None:
    before = run.backbone.fingerprint(train.CANDIDATE)
    loss_and_gradient(run, run._forward())
    assert run.backbone.fingerprint(train.CANDIDATE) == before


def test_too_many_states_are_not_kept(run: train.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "LIMIT", 100)
    assert not isinstance(run._forward(), boundary.Boundary)


def test_all_layers_need_no_boundary(run: train.Run) -> None:
    assert boundary.between(run.backbone, 0, run.prefixes, [item.ids for item in run.items]) is None
