"""The loop of a training run: batches -> losses -> steps, the best epoch kept. One process or several (torch.distributed)."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby

import torch
from torch import Tensor

from runtime.config import LearnerConfig
from runtime.errors import Unavailable
from runtime.learning import losses, mixing, optimisers, penalties, plan
from runtime.learning.boundary import Boundary, Plain
from runtime.learning.candidate import Candidate
from runtime.learning.objectives import Item, log_probs
from runtime.policy.adapter import Adapter
from runtime.policy.backbone import BASE, Backbone
from runtime.policy.decoder import Weights

LEARNT = 0.01  # nats an example over an epoch: below it nothing is left to learn
NOISE = 0.05  # accuracy by which an epoch must be worse than the best to count as worse: the held-out items are few
Scored = tuple[float, float]  # larger is better
Renew = Callable[[], Sequence[Item]]  # as many as before, with the same prompts
Tell = Callable[[int, int, int, float], None]  # epoch, step, steps in all, loss


class Group:
    """The processes of one run: `torchrun` and `accelerate launch` say by environment which one this is."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @classmethod
    @contextmanager
    def join(cls, environment: Mapping[str, str]) -> Iterator[Group]:
        size = int(environment.get("WORLD_SIZE", "1"))
        if size == 1:
            yield cls()
            return
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        try:
            yield cls(int(environment["RANK"]), size)
        finally:
            torch.distributed.destroy_process_group()

    def share(self, batch: Sequence[int]) -> Sequence[int]:
        """This process's part of a batch."""
        return batch[self.rank :: self.size]

    def sum(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes."""
        if self.size > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            torch.distributed.barrier()


class Fit:
    """Trains a candidate on items; `run` returns the seconds spent on scoring."""

    def __init__(
        self,
        backbone: Backbone,
        candidate: Candidate,
        forward: Boundary | Plain,
        settings: LearnerConfig,
        items: Sequence[Item],
        prefixes: Sequence[tuple[int, ...]],
        *,
        group: Group,
        score: Callable[[], Scored | None],
        tell: Tell,
        renew: Renew | None = None,
        anchors: Sequence[bool] = (),
    ) -> None:
        """`score` judges the candidate on held-out items, or is None where they are too few; `renew` gives the items of the
        next epoch; `anchors`: which items were right already, so that every batch gets its share of them."""
        self._backbone, self._candidate, self._forward, self._settings = backbone, candidate, forward, settings
        self._items, self._prefixes, self._group = items, prefixes, group
        self._score, self._tell, self._renew = score, tell, renew
        self._anchors = anchors or [False] * len(items)
        self._parameters = candidate.parameters
        for parameter in self._parameters:  # never None: a process without a share of a batch joins the sum
            parameter.grad = torch.zeros_like(parameter)
        self._optimiser = optimisers.make(
            settings.optimiser, self._parameters, lr=settings.lr, momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )  # fmt: skip
        self._average = penalties.Average(self._parameters, settings.ema) if settings.ema else None
        steps = math.ceil(math.ceil(len(items) / settings.batch) / settings.accumulate)
        self.epochs = max(plan.epochs(len(items), settings), math.ceil(settings.min_steps / steps))
        self._total = self.epochs * steps
        self._references: dict[Item, float] = {}
        self.epochs_run = 0
        self.early_stopped = False

    def run(self) -> float:
        order = random.Random(self._settings.seed)
        best, kept, waited, scoring, step = (-math.inf, 0.0), self._snapshot(), 0, 0.0, 0
        for epoch in range(self.epochs):
            seen, total = 0, 0.0
            if self._renew is not None:
                self._items = self._renew()
            for batches in self._steps(order):
                loss, count = self._step(batches, step)
                step += 1
                seen, total = seen + count, total + loss * count
                self._tell(epoch, step, self._total, loss)
            self.epochs_run = epoch + 1
            begun = time.perf_counter()
            now = self._judge()
            scoring += time.perf_counter() - begun
            if now is None or now[0] >= best[0] - NOISE:
                best, kept, waited = max(now, best) if now is not None else best, self._snapshot(), 0
            else:
                waited += 1
            learnt = total / seen < LEARNT
            if learnt or (self._may_stop and waited >= self._settings.patience and step >= self._settings.min_steps):
                self.early_stopped = epoch + 1 < self.epochs
                break
        with torch.no_grad():
            for parameter, value in zip(self._parameters, kept, strict=True):
                parameter.copy_(value)
        return scoring

    @property
    def _may_stop(self) -> bool:
        """A rate that falls to the end is never cut short: the middle of its way is the worst place to stop."""
        return self._settings.schedule == "constant"

    def _snapshot(self) -> list[Tensor]:
        if self._average is not None:
            return self._average.values()
        return [parameter.detach().clone() for parameter in self._parameters]

    def _judge(self) -> Scored | None:
        if self._average is None:
            return self._score()
        with self._average.applied():
            return self._score()

    # --- one step -----------------------------------------------------------------------------------------------

    def _step(self, batches: Sequence[Sequence[int]], step: int) -> tuple[float, int]:
        """Gradient of the mean loss over all items of these batches, and one move. Returns (loss, items)."""
        settings, count = self._settings, sum(map(len, batches))
        for group in self._optimiser.param_groups:
            group["lr"] = settings.lr * optimisers.schedule(
                settings.schedule, step, self._total, warm_up=settings.warm_up, floor=settings.floor
            )
        self._optimiser.zero_grad(set_to_none=False)
        total = torch.zeros((), device=self._backbone.device)
        for batch in batches:
            mine = self._group.share(batch)
            if mine:
                loss = self._loss(mine) / count
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        self._group.sum(total, *gradients)
        if penalty := self._penalty():
            total += penalty
        if not torch.isfinite(total):
            raise Unavailable("the training loss is not finite; try a smaller [learner] lr")
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, settings.clip or math.inf)
        if not torch.isfinite(norm):
            raise Unavailable("the gradient is not finite; try a smaller [learner] lr")
        self._optimiser.step()
        if self._average is not None:
            self._average.update()
        return total.item(), count

    def _penalty(self) -> float:
        """Gradient and value of what L1 and L2 ask for the size of the update."""
        settings, found = self._settings, 0.0
        for weight, norm in ((settings.l1, penalties.L1), (settings.l2, penalties.L2)):
            if weight:
                size = weight * self._candidate.size(norm)
                size.backward()  # type: ignore[no-untyped-call]
                found += size.item()
        return found

    def _loss(self, batch: Sequence[int]) -> Tensor:
        """Sum over the batch's items of their weighted losses."""
        items, prefix = [self._items[i] for i in batch], self._prefixes[batch[0]]
        weights = self.weights(self._candidate.adapter(), training=True)
        per_item = self._objective(weights, prefix, items)
        return (per_item * torch.tensor([item.weight for item in items], device=per_item.device)).sum()

    @torch.no_grad()
    def mean_loss(self, items: Sequence[Item], prefixes: Sequence[tuple[int, ...]]) -> float:
        """Nats an item that was not trained on."""
        weights, total = self.weights(self._candidate.adapter()), 0.0
        for item, prefix in zip(items, prefixes, strict=True):
            total -= log_probs(self._backbone, weights, self._forward, prefix, [item]).sum().item()
        return total / len(items)

    def weights(self, adapter: Adapter, training: bool = False) -> Weights:
        return Weights(self._backbone.state, adapter, self._settings.dropout if training else 0.0)

    def _objective(self, weights: Weights, prefix: tuple[int, ...], items: Sequence[Item]) -> Tensor:
        settings = self._settings
        if settings.objective == "dpo":
            return self._dpo(weights, prefix, items)
        if settings.objective == "kto":
            return self._kto(weights, prefix, items)
        found = log_probs(self._backbone, weights, self._forward, prefix, items)
        if settings.objective == "reward":
            rewards = torch.tensor([item.reward for item in items], device=found.device)
            return losses.weighted_reward(found, rewards, torch.ones_like(rewards))
        return losses.sft(found)

    def _dpo(self, weights: Weights, prefix: tuple[int, ...], items: Sequence[Item]) -> Tensor:
        """Pairs by DPO; what has no wrong answer beside it by its likelihood."""
        wrong = [item.rejected for item in items if item.rejected is not None]
        found = log_probs(self._backbone, weights, self._forward, prefix, [*items, *wrong])
        known = self._reference(prefix, [*items, *wrong])
        out, pairs = losses.sft(found[: len(items)]), [i for i, item in enumerate(items) if item.rejected is not None]
        if not pairs:
            return out
        good = torch.tensor(pairs, device=found.device)
        bad = torch.arange(len(items), len(items) + len(wrong), device=found.device)
        return out.index_copy(
            0, good, losses.dpo(found[good], found[bad], known[good], known[bad], self._settings.beta)
        )

    def _kto(self, weights: Weights, prefix: tuple[int, ...], items: Sequence[Item]) -> Tensor:
        """Answers that were right or liked against those that were wrong or disliked."""
        wrong = [item.rejected for item in items if item.rejected is not None]
        whole, others = [*items, *wrong], [item.other for item in items if item.other is not None]
        found, known = log_probs(self._backbone, weights, self._forward, prefix, whole), self._reference(prefix, whole)
        with torch.no_grad():
            away = log_probs(self._backbone, weights, self._forward, prefix, others)
        divergence = (away - self._reference(prefix, others)).mean().clamp(min=0)
        liked = torch.tensor([item.reward > 0 for item in items] + [False] * len(wrong), device=found.device)
        each = losses.kto(found, known, liked, divergence, self._settings.beta)
        owners = [*range(len(items)), *(i for i, item in enumerate(items) if item.rejected is not None)]
        return torch.zeros(len(items), device=found.device).index_add(
            0, torch.tensor(owners, device=found.device), each
        )

    @torch.no_grad()
    def _reference(self, prefix: tuple[int, ...], items: Sequence[Item]) -> Tensor:
        """Log-probabilities under the base model, computed once an item."""
        missing = [item for item in dict.fromkeys(items) if item not in self._references]
        if missing:
            weights = self._backbone.weights(BASE)
            found = log_probs(self._backbone, weights, self._forward, prefix, missing)
            self._references.update(zip(missing, found.tolist(), strict=True))
        return torch.tensor([self._references[item] for item in items], device=self._backbone.device)

    # --- batches ------------------------------------------------------------------------------------------------

    def _steps(self, order: random.Random) -> Iterator[list[list[int]]]:
        batches = self._batches(order)
        for start in range(0, len(batches), self._settings.accumulate):
            yield batches[start : start + self._settings.accumulate]

    def _batches(self, order: random.Random) -> list[list[int]]:
        """Every item once, in random order; items of similar length and the same prefix share a batch, and anchors are
        spread evenly."""
        numbers = list(range(len(self._items)))
        order.shuffle(numbers)
        numbers.sort(key=lambda i: (self._prefixes[i], len(self._items[i].ids) // 4))
        groups = [
            batch
            for _, same in groupby(numbers, key=lambda i: self._prefixes[i])
            for batch in mixing.batches(list(same), self._anchors, self._settings.batch)
        ]
        order.shuffle(groups)
        return groups
