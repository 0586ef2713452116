"""The fine-tuning menu: every key of `[learner]` that names a choice changes what the training program writes, in its way."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file
from torch import Tensor

from runtime.config import LearnerConfig, presets
from runtime.errors import BadConfig
from runtime.learning import jobs
from runtime.learning.jobs import Base, Report
from runtime.learning.run import CANDIDATE, Run
from runtime.messages import Action, Example
from tests.learning.test_train import CATALOGUES, TRAIN, job_directory, lamp
from tests.policy import tiny

QUICK: dict[str, Any] = {"min_steps": 4, "epochs": 1, "batch": 3}
PAIRED = [  # one that says what was wrong, one that names its answer
    replace(TRAIN[0], rejected=lamp("dim")), *TRAIN[1:],
    Example(id="fb-9", scope="hall", text="Make it dim.", action=lamp("dim"), at=9.0),
]  # fmt: skip
Weights = dict[str, Tensor]


class Trained:
    """What one run left behind."""

    def __init__(self, directory: Path, report: Report) -> None:
        self.report = report
        self.directory = directory / jobs.ADAPTER
        found = [load_file(file) for file in sorted(self.directory.glob("*.safetensors"))]
        self.weights: Weights = {name: tensor.float() for tensors in found for name, tensor in tensors.items()}

    @property
    def update(self) -> Weights:
        """Change of every weight matrix that LoRA factors name."""
        scale = self.config["lora_alpha"] / self.config["r"]
        ups = {n: w for n, w in self.weights.items() if "lora_B" in n}
        return {n: scale * up @ self.weights[n.replace("lora_B", "lora_A")] for n, up in ups.items()}

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "adapter_config.json").read_text())
        return found

    def norm(self, order: int) -> float:
        return sum(float(change.abs().pow(order).sum()) for change in self.update.values())


Train = Callable[..., Trained]


@pytest.fixture(scope="module")
def trained(model: Base, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train with these settings, once each."""
    known: dict[str, Trained] = {}

    def run(**settings: Any) -> Trained:
        key = json.dumps(settings, sort_keys=True)
        if key not in known:
            directory = job_directory(tmp_path_factory.mktemp("job"), model, taught=PAIRED, **{**QUICK, **settings})
            known[key] = Trained(directory, Run(directory)())
        return known[key]

    return run


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize(
    "setting",
    [
        {"lr": 0.005}, {"alpha": 8}, {"seed": 5}, {"dropout": 0.3}, {"batch": 2}, {"accumulate": 2},
        {"schedule": "linear"}, {"schedule": "constant"}, {"warm_up": 0.9}, {"floor": 1.0}, {"clip": 0.01},
        {"optimiser": "adam", "weight_decay": 0.5}, {"optimiser": "adafactor"}, {"optimiser": "sgd"},
        {"optimiser": "sgd", "momentum": 0.0}, {"weight_decay": 0.5}, {"l1": 0.1}, {"l2": 0.1}, {"ema": 0.8},
        {"objective": "sft"}, {"objective": "dpo"}, {"objective": "kto"}, {"augment": 2}, {"min_steps": 7},
    ],
    ids=str,
)  # fmt: skip
def test_a_choice_changes_the_weights(trained: Train, setting: dict[str, Any]) -> None:
    without = dict(list(setting.items())[:-1])  # all but the last key: the last one by itself makes a difference
    if setting == {"optimiser": "adam", "weight_decay": 0.5}:  # but this one: Adam knows no decay
        assert same(trained(**setting).weights, trained(optimiser="adam").weights)
        return
    assert not same(trained(**setting).weights, trained(**without).weights)


def test_the_same_choices_give_the_same_weights(model: Base, trained: Train, tmp_path: Path) -> None:
    again = job_directory(tmp_path / "job", model, taught=PAIRED, **QUICK)
    assert same(Trained(again, Run(again)()).weights, trained().weights)


def test_rank_and_targets_are_what_is_trained(trained: Train) -> None:
    found = trained(rank=3, targets=["q_proj", "down_proj"])
    assert {n.split(".")[-3] for n in found.weights} == {"q_proj", "down_proj"}
    assert {min(w.shape) for w in found.weights.values()} == {3}


@pytest.mark.parametrize(("layers", "numbers"), [("top:1", {3}), ("top:3", {1, 2, 3}), ("all", {0, 1, 2, 3})])
def test_the_other_layers_stay_frozen(trained: Train, layers: str, numbers: set[int]) -> None:
    found = trained(layers=layers)
    assert {int(n.split(".layers.")[1].split(".")[0]) for n in found.weights} == numbers


@pytest.mark.parametrize(("kind", "layers"), [("full_delta", "top:1"), ("full_delta", "all"), ("head_only", "all")])
def test_other_kinds_learn_as_well(trained: Train, kind: str, layers: str) -> None:
    found = trained(adapter=kind, layers=layers, min_steps=100, lr=0.02)
    assert found.report.candidate.recall > found.report.champion.recall


def test_a_penalty_makes_the_update_smaller(trained: Train) -> None:
    assert trained(l1=0.1, lr=0.002, min_steps=30).norm(1) < trained(lr=0.002, min_steps=30).norm(1)
    assert trained(l2=0.1, lr=0.002, min_steps=30).norm(2) < trained(lr=0.002, min_steps=30).norm(2)


def test_pruning_lowers_the_rank_and_keeps_the_energy(trained: Train) -> None:
    whole, pruned = trained(), trained(prune=0.9)
    assert pruned.config["r"] < whole.config["r"]
    for name, change in whole.update.items():
        lost = (change - pruned.update[name]).norm() / change.norm()
        assert lost <= math.sqrt(0.1) + 1e-3


def test_accumulated_batches_are_one_step(trained: Train) -> None:
    """All examples in one step: in one batch, or in batches of two."""
    at_once, in_parts = trained(batch=7, min_steps=1), trained(batch=2, accumulate=9, min_steps=1)
    for name, change in at_once.update.items():
        torch.testing.assert_close(in_parts.update[name], change, rtol=2e-2, atol=1e-6)


def test_the_running_mean_lags_behind(trained: Train) -> None:
    assert trained(ema=0.9).norm(2) < trained().norm(2)


def test_a_search_says_what_it_found(model: Base, tmp_path: Path) -> None:
    dark = [
        Example(id=f"fb-m{n}", scope="hall", text=f"It is dark {n}.", action=lamp("bright"), at=float(n))
        for n in range(30)
    ]
    found = Run(job_directory(tmp_path / "job", model, taught=[*TRAIN, *dark], tune=True, epochs=2, min_steps=0))()
    assert found.tuned
    assert set(found.tuned) <= {"lr", "rank", "alpha", "layers"}


def test_from_another_house(model: Base, trained: Train) -> None:
    """What was learnt elsewhere is there from the first step on."""
    elsewhere = trained(min_steps=100, rank=4, alpha=8)
    here = {"lr": 1e-9, "min_steps": 1, "rank": 4, "alpha": 8}
    assert trained(start=str(elsewhere.directory), **here).report.candidate.recall == 1.0
    assert trained(**here).report.candidate.recall < 1.0


def test_from_another_house_of_another_shape_is_one_sentence(trained: Train) -> None:
    with pytest.raises(BadConfig, match=r"\[learner\] start: .* rank of at least 16"):
        trained(start=str(trained().directory), rank=2)
    with pytest.raises(BadConfig, match="changes none of the layers"):
        trained(start=str(trained(targets=["q_proj"]).directory), targets=["k_proj"])


def test_the_right_answer_gains_on_the_wrong_one(model: Base, tmp_path: Path) -> None:
    """DPO on pairs, KTO on ratings and the weighted reward all make a disliked answer rarer."""
    text = "Somebody is at the door."
    liked = Example(id="fb-1", scope="hall", text=text, action=lamp("bright"), rejected=lamp("dim"), at=1.0)
    disliked = Example(id="fb-2", scope="hall", text=text, action=lamp("dim"), reward=-1.0, at=2.0)
    for objective, taught in (("dpo", liked), ("kto", liked), ("reward", disliked)):
        settings: dict[str, Any] = {"objective": objective, "min_steps": 20, "lr": 0.01}
        run = Run(job_directory(tmp_path / objective, model, taught=[taught, *TRAIN[:3]], **settings))
        before = _log_probability(run, "base", text, lamp("dim"))
        run()
        assert _log_probability(run, CANDIDATE, text, lamp("dim")) < before, objective


def _log_probability(run: Run, adapter: str, text: str, action: Action) -> float:
    scored = run.scorer.score([text], CATALOGUES["hall"], adapter)[0]
    return scored.log_probs[scored.actions.index(action)]


def test_the_plainest_recipe_fine_tunes_all_of_gpt2(tmp_path: Path) -> None:
    """Adam at 1e-5, three epochs, every weight: the shipped preset, as written."""
    settings = LearnerConfig(preset="plain")
    assert (settings.optimiser, settings.lr, settings.epochs, settings.adapter) == ("adam", 1e-5, 3, "full_delta")
    directory = job_directory(tmp_path / "job", tiny.gpt2(tmp_path / "gpt2"), **{**presets()["plain"], "batch": 6})
    found = Trained(directory, Run(directory)())
    assert found.report.epochs == 3
    moved = [change.abs().max() for name, change in found.weights.items() if "wte" in name or ".h." in name]
    assert moved
    assert 0 < max(moved) <= 4e-5  # three steps of Adam move nothing further than about three times lr


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_trains(trained: Train, name: str) -> None:
    chosen = {**presets()[name], "preset": name, "epochs": 1, "min_steps": 2}
    found = trained(**chosen)
    assert found.weights
    assert found.report.parameters["preset"] == name


def test_a_key_beside_a_preset_wins() -> None:
    assert LearnerConfig(preset="quick", batch=3).batch == 3
    assert LearnerConfig(preset="quick").batch == 16


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"there is no preset 'quik'.*quick"):
        LearnerConfig(preset="quik")
