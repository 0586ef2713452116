"""Example -> what the loss looks at. Finite answers: cross-entropy over the candidates that compete at each branching
token; written answers: cross-entropy over the whole vocabulary at every token of the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from msgspec.structs import replace
from torch import Tensor
from torch.nn import functional as F

from runtime.catalogue import Catalogue
from runtime.learning.jobs import Job
from runtime.messages import Action, Example
from runtime.policy.backbone import Backbone
from runtime.policy.decoder import Weights
from runtime.policy.scoring import Scorer

Step = tuple[int, int, tuple[int, ...]]
# weights, prefix, rows -> hidden states [sum(L), d] of the rows, one after the other
Forward = Callable[[Weights, Sequence[int], Sequence[Sequence[int]]], Tensor]


@dataclass(frozen=True)
class Item:
    """One example as token ids. `steps` = (position in `ids` whose next token is judged, that token, its rivals)."""

    ids: tuple[int, ...]
    steps: tuple[Step, ...]  # rivals () = the whole vocabulary
    weight: float
    rejected: Item | None = None  # the answer that was wrong, for objectives that compare
    other: Item | None = None  # this situation with another example's answer, for KTO's estimate of the divergence
    reward: float = 1.0


def allowed(job: Job, examples: Sequence[Example]) -> list[Example]:
    """The examples whose scope and action there still are: tools go while their feedback stays."""
    return [e for e in examples if e.scope in job.catalogues and job.catalogues[e.scope].allows(e.action)]


def prepare(scorer: Scorer, job: Job, examples: Sequence[Example], objective: str = "candidates") -> list[Item]:
    """The items of examples that are `allowed`; their weights are made 1 on average."""
    mean = sum(example.weight for example in examples) / max(len(examples), 1)
    even = [replace(example, weight=example.weight / mean) for example in examples]
    others = _others(even) if objective == "kto" else [None] * len(even)
    return [
        _item(scorer, job.catalogues[example.scope], example, other, whole=objective == "sft")
        for example, other in zip(even, others, strict=True)
    ]


def said_otherwise(scorer: Scorer, job: Job, item: Item, example: Example, objective: str) -> Item:
    """The item of an example whose situation was changed, with the weight of the item it stands for."""
    same = replace(example, weight=item.weight)
    return _item(scorer, job.catalogues[example.scope], same, None, whole=objective == "sft")


def _others(examples: Sequence[Example]) -> list[Action | None]:
    """For each example the action of the next one in its scope."""
    by_scope: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        by_scope.setdefault(example.scope, []).append(i)
    following = {i: own[(at + 1) % len(own)] for own in by_scope.values() for at, i in enumerate(own)}
    return [examples[following[i]].action for i in range(len(examples))]


def _item(scorer: Scorer, catalogue: Catalogue, example: Example, other: Action | None, whole: bool) -> Item:
    told = _told(scorer, catalogue, example, example.action, whole)
    wrong = example.rejected
    if wrong is not None and (wrong == example.action or not catalogue.allows(wrong)):
        wrong = None
    return dataclasses.replace(
        told,
        rejected=_told(scorer, catalogue, example, wrong, whole) if wrong is not None else None,
        other=_told(scorer, catalogue, example, other, whole) if other is not None else None,
    )


def _told(scorer: Scorer, catalogue: Catalogue, example: Example, action: Action, whole: bool) -> Item:
    prompt = scorer.prompt(catalogue)
    situation = prompt.encode(example.text)
    answer = prompt.completion(catalogue, action)
    last = len(situation) - 1
    if whole or not catalogue.closed:
        steps: list[Step] = [(last + i, token, ()) for i, token in enumerate(answer)]
    else:
        tree, actions = scorer.trie(catalogue)
        number = actions.index(action)
        steps = [
            (last + depth, token, tuple(rivals))
            for (depth, token), rivals in zip(tree.steps(number), tree.allowed(number), strict=True)
        ]
    used = max((position for position, _, _ in steps), default=last) + 1
    return Item(tuple([*situation, *answer][:used]), tuple(steps), example.weight, reward=example.reward)


def log_probs(
    backbone: Backbone, weights: Weights, forward: Forward, prefix: Sequence[int], batch: Sequence[Item]
) -> Tensor:
    """Log-probability [B] of each item's answer, in nats: the sum over its steps."""
    hidden = forward(weights, prefix, [item.ids for item in batch])
    starts = torch.tensor([0, *(len(item.ids) for item in batch)]).cumsum(0).tolist()
    where = [
        (row, starts[row] + position, token, rivals)
        for row, item in enumerate(batch)
        for position, token, rivals in item.steps
    ]
    total = torch.zeros(len(batch), device=backbone.device)
    for open_ended in (False, True):
        part = [step for step in where if (not step[3]) == open_ended]
        if part:
            picked = hidden[[at for _, at, _, _ in part]]
            losses = (_whole if open_ended else _among)(backbone, weights, picked, part)
            total = total.index_add(0, torch.tensor([row for row, *_ in part], device=backbone.device), -losses)
    return total


def _whole(
    backbone: Backbone, weights: Weights, hidden: Tensor, steps: Sequence[tuple[int, int, int, tuple[int, ...]]]
) -> Tensor:
    gold = torch.tensor([token for _, _, token, _ in steps], device=hidden.device)
    return F.cross_entropy(backbone.logits(hidden, weights), gold, reduction="none")


def _among(
    backbone: Backbone, weights: Weights, hidden: Tensor, steps: Sequence[tuple[int, int, int, tuple[int, ...]]]
) -> Tensor:
    """Only the logits of tokens that compete somewhere in the batch are computed."""
    tokens = sorted({token for *_, rivals in steps for token in rivals})
    column = {token: i for i, token in enumerate(tokens)}
    mask = torch.full((len(steps), len(tokens)), float("-inf"))
    for i, (*_, rivals) in enumerate(steps):
        mask[i, [column[token] for token in rivals]] = 0.0
    logits = backbone.logits(hidden, weights, torch.tensor(tokens, device=hidden.device)) + mask.to(hidden.device)
    gold = torch.tensor([column[token] for _, _, token, _ in steps], device=hidden.device)
    return F.cross_entropy(logits, gold, reduction="none")
