"""The shortcuts of training (shared prompt, few logits, padding) change no loss and no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue, Tool
from runtime.learning import objectives
from runtime.learning.jobs import Base, Job
from runtime.messages import Action, Example
from runtime.policy.backbone import Backbone
from runtime.policy.scoring import Scorer

LAMP = Tool(name="lamp", arguments={"level": {"enum": ["off", "dim", "bright"]}}, required=("level",))
JOB_CATALOGUES = {"hall": Catalogue(tools=(LAMP, DO_NOTHING)), "chat": Catalogue(tools=(REPLY,))}


def example(text: str, action: Action, scope: str = "hall", weight: float = 1.0) -> Example:
    return Example(id=text, scope=scope, text=text, action=action, weight=weight, at=0.0)


EXAMPLES = [
    example("It is dark.", Action(tool="lamp", arguments={"level": "bright"})),
    example("It is dark and we watch a film tonight.", Action(tool="lamp", arguments={"level": "dim"}), weight=0.5),
    example("ok", Action(tool="nothing")),
    example("What is your name?", Action(tool="reply", arguments={"text": "Corrigible."}), scope="chat"),
]


@pytest.fixture
def scorer(model: Base) -> Scorer:
    backbone = Backbone(model)
    backbone.model.requires_grad_(True)
    return Scorer(backbone, "Choose what to do.", reply_tokens=8, free_below=0.0, catalogue_tokens=0)


@pytest.fixture
def job(model: Base) -> Job:
    return Job(base=model, instruction="Choose what to do.", catalogues=JOB_CATALOGUES)


def plain(scorer: Scorer, job: Job) -> Tensor:
    """The definition: every example alone, its whole text at once, full logits."""
    total = torch.zeros(())
    for item in EXAMPLES:
        catalogue = job.catalogues[item.scope]
        prompt = scorer.prompt(catalogue)
        before, answer = prompt.prefix + prompt.encode(item.text), prompt.completion(catalogue, item.action)
        logits = scorer.backbone.model(torch.tensor([before + answer])).logits[0].float()
        rivals = [prompt.completion(catalogue, action) for action in catalogue.finite()]
        for depth, token in enumerate(answer):
            here = logits[len(before) + depth - 1]
            if catalogue.closed:
                allowed = sorted({r[depth] for r in rivals if r[:depth] == answer[:depth]})
                total = total - item.weight * here[allowed].log_softmax(-1)[allowed.index(token)]
            else:
                total = total - item.weight * here.log_softmax(-1)[token]
    return total / sum(item.weight for item in EXAMPLES)


def gradient(scorer: Scorer, loss: Tensor) -> Tensor:
    scorer.backbone.model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return torch.cat([p.grad.flatten() for p in scorer.backbone.model.parameters() if p.grad is not None])


def test_loss_and_gradient_are_those_of_the_plain_loop(scorer: Scorer, job: Job) -> None:
    items = objectives.prepare(scorer, job, EXAMPLES)
    quick = objectives.loss(
        scorer.backbone, objectives.plain(scorer.backbone), scorer.prompt(JOB_CATALOGUES["hall"]).prefix, items
    )
    slow = plain(scorer, job)
    assert quick.detach().item() == pytest.approx(slow.detach().item(), rel=1e-4)
    a, b = gradient(scorer, quick), gradient(scorer, slow)
    assert float((a - b).norm() / b.norm()) < 1e-3


def test_what_the_catalogue_no_longer_allows_is_left_out(job: Job) -> None:
    stale = [example("x", Action(tool="gone")), example("y", Action(tool="nothing"), scope="attic")]
    stale.append(example("z", Action(tool="lamp", arguments={"level": "blue"})))
    assert objectives.allowed(job, [*stale, EXAMPLES[0]]) == [EXAMPLES[0]]


def test_forced_tokens_are_not_asked(scorer: Scorer, job: Job) -> None:
    items = objectives.prepare(scorer, job, EXAMPLES)
    assert len(items[2].steps) == 1  # `nothing` is decided at its first token
    assert all(len(rivals) > 1 for item in items[:3] for *_, rivals in item.steps)
    assert all(rivals == () for *_, rivals in items[3].steps)
