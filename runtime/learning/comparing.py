"""Candidate and champion, asked about the same situations inside the trainer -> what the gate judges besides the held-out items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, TypeVar

from runtime.learning import offpolicy, reference
from runtime.learning.jobs import Job
from runtime.learning.offpolicy import Estimate, Logged, Told
from runtime.learning.reference import Answer, Drift, Reference
from runtime.policy.client import BULK_BATCH, BULK_FLOOR
from runtime.policy.prompt import replies_open
from runtime.policy.protocol import Row
from runtime.policy.scoring import Scorer

SLOW = 20  # situations of a scope whose answers must be written word by word


class Asked(Protocol):
    """A logged decision, or a reference situation."""

    @property
    def scope(self) -> str: ...
    @property
    def text(self) -> str: ...


A = TypeVar("A", bound=Asked)


def off_policy(scorer: Scorer, job: Job, logged: Sequence[Logged], candidate: str, champion: str) -> Estimate | None:
    """What both would have earned in the logged decisions; None where there are none."""
    kept = [one for one in _affordable(job, logged[::-1]) if _valid(job, one)][::-1]  # the newest, where not all are
    if not kept:
        return None
    told = [_told(job, one) for one in kept]
    said = [[answer.said for answer in answers(scorer, job, name, kept)] for name in (candidate, champion)]
    return offpolicy.estimate(told, *said)


def change(scorer: Scorer, job: Job, seen: Sequence[Reference], candidate: str, champion: str) -> Drift | None:
    """What the release would change; None without situations to ask about."""
    asked = _affordable(job, seen)
    if not asked:
        return None
    return reference.measure(asked, *(answers(scorer, job, name, asked) for name in (champion, candidate)))


def answers(scorer: Scorer, job: Job, adapter: str, asked: Sequence[Asked]) -> list[Answer]:
    """What an adapter says by the weights alone, in the order of `asked`."""
    by_scope: defaultdict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(asked):
        by_scope[one.scope].append(i)
    found: dict[int, Answer] = {}
    for scope, places in by_scope.items():
        places.sort(key=lambda i: len(asked[i].text))
        for start in range(0, len(places), BULK_BATCH):
            part = places[start : start + BULK_BATCH]
            rows = scorer.score([asked[i].text for i in part], job.catalogues[scope], adapter, BULK_FLOOR)
            found.update((i, _answer(job, scope, row)) for i, row in zip(part, rows, strict=True))
    return [found[i] for i in range(len(asked))]


def _answer(job: Job, scope: str, row: Row) -> Answer:
    render = job.catalogues[scope].render
    probabilities = {render(action): log_p for action, log_p in zip(row.actions, row.log_probs, strict=True)}
    return Answer(render(row.chosen), probabilities or {render(row.chosen): 0.0})


def _affordable(job: Job, asked: Sequence[A]) -> list[A]:
    """Those whose scope there still is; a scope whose answers must be written is asked a few times only, about the first."""
    count: defaultdict[str, int] = defaultdict(int)
    kept = []
    for one in asked:
        catalogue = job.catalogues.get(one.scope)
        if catalogue is None:
            continue
        slow = not catalogue.closed and not replies_open(catalogue)
        if slow and count[one.scope] >= SLOW:
            continue
        count[one.scope] += 1
        kept.append(one)
    return kept


def _valid(job: Job, one: Logged) -> bool:
    return all(job.catalogues[one.scope].allows(action) for action in (one.action, one.right) if action is not None)


def _told(job: Job, one: Logged) -> Told:
    render = job.catalogues[one.scope].render
    return Told(
        action=render(one.action), chance=one.chance, reward=one.reward, right=render(one.right) if one.right else ""
    )
