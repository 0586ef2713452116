"""Adapter + examples -> scores, and which of them it gets right; the trainer judges candidate and champion with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from runtime.learning import scores
from runtime.learning.jobs import Job, Judgement, Scores
from runtime.messages import Example
from runtime.policy.client import BULK_BATCH, BULK_FLOOR
from runtime.policy.protocol import Row
from runtime.policy.scoring import Scorer

SHOWN = 200  # likeliest actions of a judgement; what is learnt from them needs the unlikely ones too


class Judged:
    """What one adapter said to a list of examples, in their order. Accuracy and log-loss count each example by its
    weight, so that where habits change the new ones decide."""

    def __init__(
        self, gold: list[str], said: list[str], log_p: list[float | None], weights: list[float],
        judgements: Sequence[Judgement] = (),
    ) -> None:  # fmt: skip
        self.judgements = tuple(judgements)
        self.right = [g == s for g, s in zip(gold, said, strict=True)]
        total = sum(weights) or 1.0
        self.accuracy = sum(w * right for w, right in zip(weights, self.right, strict=True)) / total
        self.macro_f1 = scores.macro_f1(gold, said)
        self.log_loss = sum(w * (scores.log_loss([p]) or 0.0) for w, p in zip(weights, log_p, strict=True)) / total

    def scores(self, recall: float) -> Scores:
        return Scores(accuracy=self.accuracy, macro_f1=self.macro_f1, log_loss=self.log_loss, recall=recall)


def judge(scorer: Scorer, job: Job, adapter: str, examples: Sequence[Example]) -> Judged:
    """Decide on every example with the weights alone."""
    by_scope: defaultdict[str, list[int]] = defaultdict(list)
    for i, example in enumerate(examples):
        by_scope[example.scope].append(i)
    gold, said = [""] * len(examples), [""] * len(examples)
    log_p: list[float | None] = [None] * len(examples)
    judgements: list[Judgement] = []
    for scope, places in by_scope.items():
        catalogue = job.catalogues[scope]
        places.sort(key=lambda i: len(examples[i].text))
        for start in range(0, len(places), BULK_BATCH):
            part = places[start : start + BULK_BATCH]
            wanted = [examples[i].action for i in part]
            rows = scorer.score([examples[i].text for i in part], catalogue, adapter, BULK_FLOOR, wanted)
            for i, row in zip(part, rows, strict=True):
                gold[i], said[i] = catalogue.render(examples[i].action), catalogue.render(row.chosen)
                log_p[i] = row.log_p_gold
                judgements.append(_judgement(examples[i], row))
    return Judged(gold, said, log_p, [example.weight for example in examples], judgements)


def _judgement(example: Example, row: Row) -> Judgement:
    order = sorted(range(len(row.actions)), key=row.log_probs.__getitem__, reverse=True)
    kept = [i for place, i in enumerate(order) if place < SHOWN or row.actions[i] == example.action]
    return Judgement(
        id=example.id, actions=tuple(row.actions[i] for i in kept), log_probs=tuple(row.log_probs[i] for i in kept)
    )
