"""Encoders learn by the same program and the same settings as language models, and their adapters are PEFT's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from runtime.catalogue import DO_NOTHING, Catalogue, Tool
from runtime.config import LearnerConfig
from runtime.learning import jobs, train
from runtime.learning.candidate import LoraCandidate
from runtime.learning.jobs import Base, Job
from runtime.learning.registry import Registry, same_fingerprint
from runtime.learning.run import CANDIDATE, Run
from runtime.messages import Action, Example
from runtime.policy.backbone import BASE
from runtime.policy.encoder import Encoder
from runtime.policy.matching import Matcher
from tests.learning.test_boundary import difference
from tests.learning.test_train import CATALOGUES, INSTRUCTION, TRAIN, lamp, safetensors_names
from tests.policy import tiny

DOOR = Tool(name="door", arguments={"open": {"type": "boolean"}}, required=("open",))
SCOPES = {**CATALOGUES, "porch": Catalogue(tools=(DOOR, DO_NOTHING))}
TAUGHT = [
    *[e for e in TRAIN if e.scope == "hall"],
    Example(id="fb-p", scope="porch", text="The cat waits outside.", at=7.0,
            action=Action(tool="door", arguments={"open": True}), rejected=Action(tool="nothing")),
    Example(id="fb-q", scope="porch", text="It rains in.", action=Action(tool="door", arguments={"open": False}), at=8.0,
            weight=2.0),
]  # fmt: skip
HELD = [Example(id="fb-h", scope="hall", text="It is very dark.", action=lamp("bright"), at=9.0)]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    return {name: tiny.encoder(name, tmp_path_factory.mktemp(name)) for name in tiny.ENCODERS}


def job_directory(
    directory: Path, model: Base, taught: list[Example] = TAUGHT, champion: Path | None = None, **settings: Any
) -> Path:
    chosen = LearnerConfig(
        **{
            "layers": "all",
            "epochs": 1,
            "min_steps": 60,
            "lr": 0.005,
            "batch": 6,
            "dropout": 0.0,
            "word_drop": 0.0,
            "refit": 0,
            "seen": 0,
            **settings,
        }
    )
    job = Job(
        base=model, instruction=INSTRUCTION, catalogues=SCOPES, champion=str(champion or ""),
        settings=chosen.model_dump(mode="json"),
    )  # fmt: skip
    jobs.write(directory, job, taught, HELD)
    return directory


def main(directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["train", str(directory)])
    return train.main()


def with_peft(model: Base, adapter: Path, trainable: bool = False) -> Any:
    from peft import PeftModel

    plain = AutoModel.from_pretrained(model.directory, dtype=torch.float32, attn_implementation="eager")
    return PeftModel.from_pretrained(plain, adapter, is_trainable=trainable).eval()


def logs(served: Any, words: Any, text: str, catalogue: Catalogue) -> Tensor:
    """The definition, every text alone."""

    def vector(text: str) -> Tensor:
        ids = torch.tensor([words(text)["input_ids"]])
        states: Tensor = served(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return states[0].mean(0)

    actions = torch.stack([vector(catalogue.render(action)) for action in catalogue.finite()])
    return (F.cosine_similarity(vector(text)[None], actions) / 0.05).log_softmax(-1)


def test_from_job_to_a_serving_adapter(bases: dict[str, Base], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, directory = bases["bert"], job_directory(tmp_path / "job", bases["bert"])
    assert main(directory, monkeypatch) == 0
    report = jobs.read_report(directory)
    assert report is not None
    assert report.candidate.recall == 1.0
    assert report.champion.recall < 1.0
    assert (report.examples, report.holdout) == (len(TAUGHT), 1)
    config = json.loads((directory / jobs.ADAPTER / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"]) == ("LORA", "FEATURE_EXTRACTION")

    store = Registry(tmp_path / "adapters")
    adapter = store.publish(directory, parent="base", lineage=[e.id for e in TAUGHT], verdict="better")
    manifest = store.verify(adapter, model.revision)
    encoder = Encoder(model)
    encoder.load(adapter, store.directory(adapter))
    same_fingerprint(adapter, manifest.fingerprint, encoder.fingerprint(adapter))
    assert encoder.fingerprint(adapter) != pytest.approx(encoder.fingerprint(BASE), abs=0.05)

    matcher, plain = Matcher(encoder), with_peft(model, store.directory(adapter))
    words = AutoTokenizer.from_pretrained(model.directory)
    for example in TAUGHT:
        row = matcher.score([example.text], SCOPES[example.scope], adapter)[0]
        assert row.chosen == example.action
        with torch.no_grad():
            wanted = logs(plain, words, example.text, SCOPES[example.scope])
        assert row.log_probs == pytest.approx(wanted.tolist(), abs=1e-3)

    second = Run(job_directory(tmp_path / "next", model, champion=directory / jobs.ADAPTER, min_steps=1))()
    assert second.champion.recall == 1.0


@pytest.mark.parametrize("layers", ["top:2", "all"])
@pytest.mark.parametrize("name", tiny.ENCODERS)
def test_the_gradient_is_that_of_the_plain_loop(name: str, layers: str, bases: dict[str, Base], tmp_path: Path) -> None:
    run = Run(job_directory(tmp_path / "job", bases[name], layers=layers, alpha=16))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in run.candidate.parameters:
            parameter.normal_(std=0.1)
    loss = run.fit._loss(range(len(run.items)))
    gradient = list(torch.autograd.grad(loss, run.candidate.parameters))

    run.candidate.save(tmp_path / "adapter")
    served, words = with_peft(bases[name], tmp_path / "adapter", trainable=True), run.backbone.tokenizer
    mean, total = sum(e.weight for e in TAUGHT) / len(TAUGHT), torch.zeros(())
    for example in TAUGHT:
        catalogue = SCOPES[example.scope]
        found = logs(served, words, example.text, catalogue)
        total = total - example.weight / mean * found[catalogue.finite().index(example.action)]
    total.backward()  # type: ignore[no-untyped-call]
    grown = {path: p.grad for path, p in served.named_parameters() if p.grad is not None}
    assert isinstance(run.candidate, LoraCandidate)
    names = [f"base_model.model.{path}.lora_{part}.default.weight" for path in run.candidate._factors for part in "AB"]
    assert sorted(names) == sorted(grown)
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)
    assert difference(gradient, [grown[path] for path in names]) < 1e-5


@pytest.mark.parametrize(("name", "folder"), [("roberta", "encoder.layer.3."), ("distilbert", "transformer.layer.3.")])
def test_only_the_top_layers_are_trained(name: str, folder: str, bases: dict[str, Base], tmp_path: Path) -> None:
    directory = job_directory(tmp_path / "job", bases[name], layers="top:1", min_steps=2)
    Run(directory)()
    names = safetensors_names(directory / jobs.ADAPTER / "adapter_model.safetensors")
    assert len(names) == 2 * 6
    assert all(f".{folder}" in name for name in names)


@pytest.mark.parametrize("objective", ["dpo", "kto", "reward"])
def test_every_objective_that_compares_answers(objective: str, bases: dict[str, Base], tmp_path: Path) -> None:
    report = Run(job_directory(tmp_path / "job", bases["bert"], objective=objective))()
    assert report.candidate.recall > report.champion.recall


def test_it_goes_on_from_another_adapter(bases: dict[str, Base], tmp_path: Path) -> None:
    first = job_directory(tmp_path / "first", bases["bert"], min_steps=5)
    Run(first)()
    second = Run(job_directory(tmp_path / "second", bases["bert"], start=str(first / jobs.ADAPTER)))
    second._serve()
    second.backbone.load("first", first / jobs.ADAPTER)
    assert second.backbone.fingerprint(CANDIDATE) == pytest.approx(second.backbone.fingerprint("first"), abs=1e-3)


@pytest.mark.parametrize(
    ("taught", "settings", "words"),
    [
        (TRAIN, {}, "this catalogue has replies or free arguments; use a language model"),
        (TAUGHT, {"objective": "sft"}, 'set objective = "candidates"'),
        (TAUGHT, {"adapter": "full_delta"}, "'bert' take no full_delta; set adapter = \"lora\""),
        (TAUGHT, {"adapter": "head_only"}, "'bert' take no head_only; set adapter = \"lora\""),
        (TAUGHT, {"targets": ["q_proj"]}, "[learner] targets: the model has no module 'q_proj'"),
    ],
    ids=["open", "sft", "full_delta", "head_only", "targets"],
)
def test_what_an_encoder_cannot_learn_is_one_sentence(
    taught: list[Example], settings: dict[str, Any], words: str, bases: dict[str, Base], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    directory = job_directory(tmp_path / "job", bases["bert"], taught, **settings)
    assert main(directory, monkeypatch) == 1
    assert not (directory / jobs.REPORT).exists()
    assert capfd.readouterr().err.strip().splitlines()[-1].endswith(words)
