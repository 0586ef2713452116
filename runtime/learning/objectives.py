"""Example -> what the loss looks at. Finite answers: cross-entropy over the candidates that compete at each branching
token; written answers: cross-entropy over the whole vocabulary at every token of the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from msgspec.structs import replace
from torch import Tensor

from runtime.catalogue import Catalogue
from runtime.errors import BadAction
from runtime.learning.jobs import Job
from runtime.messages import Example
from runtime.policy.backbone import Backbone
from runtime.policy.scoring import Scorer

Step = tuple[int, int, tuple[int, ...]]
Forward = Callable[[Sequence[int], Sequence[Sequence[int]]], Tensor]  # prefix, rows -> hidden states [B, L, d]


@dataclass(frozen=True)
class Item:
    """One example as token ids. `steps` = (position in `ids` whose next token is judged, that token, its rivals)."""

    ids: tuple[int, ...]
    steps: tuple[Step, ...]  # rivals () = the whole vocabulary
    weight: float


def allowed(job: Job, examples: Sequence[Example]) -> list[Example]:
    """The examples whose scope and action there still are: tools go while their feedback stays."""
    kept = []
    for example in examples:
        with suppress(BadAction):
            if example.scope in job.catalogues:
                job.catalogues[example.scope].check(example.action)
                kept.append(example)
    return kept


def prepare(scorer: Scorer, job: Job, examples: Sequence[Example]) -> list[Item]:
    """The items of examples that are `allowed`; their weights are made 1 on average."""
    mean = sum(example.weight for example in examples) / max(len(examples), 1)
    return [
        _item(scorer, job.catalogues[example.scope], replace(example, weight=example.weight / mean))
        for example in examples
    ]


def _item(scorer: Scorer, catalogue: Catalogue, example: Example) -> Item:
    prompt = scorer.prompt(catalogue)
    situation = prompt.encode(example.text)
    answer = prompt.completion(catalogue, example.action)
    last = len(situation) - 1
    if not catalogue.closed:
        steps: list[Step] = [(last + i, token, ()) for i, token in enumerate(answer)]
    else:
        tree, actions = scorer.trie(catalogue)
        number = actions.index(example.action)
        steps = [
            (last + depth, token, tuple(rivals))
            for (depth, token), rivals in zip(tree.steps(number), tree.allowed(number), strict=True)
        ]
    used = max((position for position, _, _ in steps), default=last) + 1
    return Item(ids=tuple([*situation, *answer][:used]), steps=tuple(steps), weight=example.weight)


def plain(backbone: Backbone) -> Forward:
    """The whole model for every batch. The prefix runs once for all rows, *with* gradient: a detached KV inside trained
    layers gives a wrong one."""
    return lambda prefix, rows: backbone.after(backbone.prefix(prefix), rows)


def loss(backbone: Backbone, forward: Forward, prefix: Sequence[int], batch: Sequence[Item]) -> Tensor:
    """Mean over items of the weighted, summed step losses, in nats. Not divided by the batch's own weights: that would
    make an old example as strong as a new one wherever only old ones meet."""
    hidden = forward(prefix, [item.ids for item in batch])
    where = [(row, *step) for row, item in enumerate(batch) for step in item.steps]
    picked = hidden[[row for row, *_ in where], [position for _, position, *_ in where]]
    total = torch.zeros((), device=backbone.device)
    for open_ended in (False, True):
        part = [i for i, (*_, rivals) in enumerate(where) if (not rivals) == open_ended]
        if part:
            judge = _whole if open_ended else _among
            rows = [where[i] for i in part]
            weights = torch.tensor([batch[row].weight for row, *_ in rows], device=backbone.device)
            total = total + (judge(backbone, picked[part], rows) * weights).sum()
    return total / len(batch)


def _whole(backbone: Backbone, hidden: Tensor, rows: Sequence[tuple[int, int, int, tuple[int, ...]]]) -> Tensor:
    gold = torch.tensor([token for _, _, token, _ in rows], device=hidden.device)
    return torch.nn.functional.cross_entropy(backbone.logits(hidden), gold, reduction="none")


def _among(backbone: Backbone, hidden: Tensor, rows: Sequence[tuple[int, int, int, tuple[int, ...]]]) -> Tensor:
    """Only the logits of tokens that compete somewhere in the batch are computed."""
    tokens = sorted({token for *_, rivals in rows for token in rivals})
    column = {token: i for i, token in enumerate(tokens)}
    mask = torch.full((len(rows), len(tokens)), float("-inf"), device=hidden.device)
    for i, (*_, rivals) in enumerate(rows):
        mask[i, [column[token] for token in rivals]] = 0.0
    logits = backbone.logits(hidden, torch.tensor(tokens, device=hidden.device)) + mask
    gold = torch.tensor([column[token] for _, _, token, _ in rows], device=hidden.device)
    return torch.nn.functional.cross_entropy(logits, gold, reduction="none")
