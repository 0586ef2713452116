"""Examples become items whose loss is that of the plain loop (gradients: test_boundary)."""

from __future__ import annotations

import msgspec
import pytest
import torch
from torch import Tensor

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue, Tool
from runtime.learning import boundary, objectives
from runtime.learning.jobs import Base, Job
from runtime.messages import Action, Example
from runtime.policy.backbone import BASE, Backbone
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


def test_the_loss_is_that_of_the_plain_loop(scorer: Scorer, job: Job) -> None:
    items = objectives.prepare(scorer, job, EXAMPLES)
    weights, prefix = scorer.backbone.weights(BASE), scorer.prompt(JOB_CATALOGUES["hall"]).prefix
    found = objectives.log_probs(scorer.backbone, weights, boundary.plain(scorer.backbone), prefix, items)
    quick = -(found * torch.tensor([item.weight for item in items])).mean()
    assert quick.item() == pytest.approx(plain(scorer, job).item(), rel=1e-4)


def test_supervised_fine_tuning_judges_every_token(scorer: Scorer, job: Job) -> None:
    items = objectives.prepare(scorer, job, EXAMPLES, "sft")
    assert all(rivals == () for item in items for *_, rivals in item.steps)
    prompt = scorer.prompt(JOB_CATALOGUES["hall"])
    assert [t for _, t, _ in items[0].steps] == prompt.completion(JOB_CATALOGUES["hall"], EXAMPLES[0].action)


def test_wrong_answers_and_other_answers_come_along(scorer: Scorer, job: Job) -> None:
    wrong = msgspec.structs.replace(EXAMPLES[0], rejected=Action(tool="nothing"))
    same = msgspec.structs.replace(EXAMPLES[1], rejected=EXAMPLES[1].action)
    first, second = objectives.prepare(scorer, job, [wrong, same], "kto")
    assert first.rejected is not None
    assert first.rejected.steps[0][1] != first.steps[0][1]
    assert second.rejected is None
    assert first.other is not None
    assert first.other.steps[-1][1] == second.steps[-1][1]


def test_what_the_catalogue_no_longer_allows_is_left_out(job: Job) -> None:
    stale = [example("x", Action(tool="gone")), example("y", Action(tool="nothing"), scope="attic")]
    stale.append(example("z", Action(tool="lamp", arguments={"level": "blue"})))
    assert objectives.allowed(job, [*stale, EXAMPLES[0]]) == [EXAMPLES[0]]


def test_forced_tokens_are_not_asked(scorer: Scorer, job: Job) -> None:
    items = objectives.prepare(scorer, job, EXAMPLES)
    assert len(items[2].steps) == 1  # `nothing` is decided at its first token
    assert all(len(rivals) > 1 for item in items[:3] for *_, rivals in item.steps)
    assert all(rivals == () for *_, rivals in items[3].steps)
