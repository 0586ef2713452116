"""The training program: job directory in, LoRA adapter and report out. By hand: `python -m runtime.learning.train JOB_DIR`.

The learner names its own process as a second argument: a trainer whose daemon was killed ends by itself.

What is covered: any causal language model of transformers whose target modules exist; non-finite losses end the run with
one sentence and exit code 1. The layers below the lowest trained one run once an example (`boundary`).
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime.config import LearnerConfig
from runtime.errors import BadConfig, CorrigibleError, Unavailable
from runtime.learning import boundary, jobs, objectives
from runtime.learning.evaluate import judge
from runtime.messages import Example
from runtime.policy.backbone import BASE, Backbone
from runtime.policy.scoring import Scorer

CANDIDATE, CHAMPION = "candidate", "champion"
WARM_UP = 0.06  # share of the steps over which the learning rate rises
FLOOR = 0.1  # share of the learning rate that is left at the end
LEARNT = 0.01  # nats an example over an epoch: below it nothing is left to learn
RECALL_SAMPLE = 48  # training items asked again at the end
STOP_SAMPLE = 64  # held-out items asked after every epoch
STOP_LEAST = 50  # held-out items below which they are too noisy to stop by (20 ended a good run after one epoch)


class Run:
    """One training run over one job directory."""

    def __init__(self, directory: Path, parent: int | None = None) -> None:
        """`parent`: the process without which the run is to end, if it is another's child."""
        self.directory = directory
        self.parent = parent
        self.job, train, held = jobs.read(directory)
        self.train, self.held = (objectives.allowed(self.job, examples) for examples in (train, held))
        if not self.train:
            raise Unavailable("no example is valid under the present catalogues")
        self.settings = LearnerConfig(**self.job.settings)
        torch.manual_seed(self.settings.seed)
        self.backbone = Backbone(self.job.base, self.settings.threads)
        self.scorer = Scorer(
            self.backbone, self.job.instruction, reply_tokens=self.job.reply_tokens, free_below=0.0,
            catalogue_tokens=self.job.catalogue_tokens,
        )  # fmt: skip
        self.items = objectives.prepare(self.scorer, self.job, self.train)
        # all scopes share one prompt unless the catalogue is listed in it, in which case batches are of one scope
        self.prefixes = [tuple(self._prompt_of(e).prefix) for e in self.train]
        steps = math.ceil(len(self.items) / self.settings.batch)
        self.epochs = max(self.settings.epochs, math.ceil(self.settings.min_steps / steps))
        self.forward: objectives.Forward = objectives.plain(self.backbone)
        self.epochs_run = 0
        self.early_stopped = False

    def _prompt_of(self, example: Example) -> Any:
        return self.scorer.prompt(self.job.catalogues[example.scope])

    def __call__(self) -> jobs.Report:
        champion_right, champion = self._champion()
        started = time.perf_counter()
        self._wrap()
        self.forward = self._forward()
        scoring = self._fit()
        seconds = time.perf_counter() - started - scoring
        self.backbone.peft.eval()
        held = judge(self.scorer, self.job, CANDIDATE, self.held)
        recall = judge(self.scorer, self.job, CANDIDATE, self._sample()).accuracy
        self.backbone.peft.save_pretrained(self.directory / jobs.ADAPTER, selected_adapters=[CANDIDATE])
        _flatten(self.directory / jobs.ADAPTER, CANDIDATE)
        passes = len(self.items) * self.epochs_run
        return jobs.Report(
            examples=len(self.items),
            holdout=len(self.held),
            seconds=round(seconds, 2),
            examples_per_second=round(passes / max(seconds, 1e-9), 2),
            epochs=self.epochs_run,
            early_stopped=self.early_stopped,
            candidate=held.scores(recall),
            champion=champion,
            wins=sum(a and not b for a, b in zip(held.right, champion_right, strict=True)),
            losses=sum(b and not a for a, b in zip(held.right, champion_right, strict=True)),
            fingerprint=tuple(self.backbone.fingerprint(CANDIDATE)),
            parameters={**self.job.settings, "epochs": self.epochs},
        )

    def _sample(self) -> list[Example]:
        """Some of the taught items, newest corrections first: does it give the answers it was taught?"""
        return sorted(self.train, key=lambda e: (e.correction, e.at), reverse=True)[:RECALL_SAMPLE]

    def _champion(self) -> tuple[list[bool], jobs.Scores]:
        """The serving adapter on the same held-out items, before the model is wrapped for training."""
        name = BASE
        if self.job.champion:
            name = CHAMPION
            self.backbone.load(CHAMPION, Path(self.job.champion))
        with torch.no_grad():
            judged = judge(self.scorer, self.job, name, self.held)
            recall = judge(self.scorer, self.job, name, self._sample()).accuracy
        self.scorer.forget(CHAMPION)
        return judged.right, judged.scores(recall)

    def _wrap(self) -> None:
        from peft import LoraConfig, get_peft_model

        settings = self.settings
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, task_type="CAUSAL_LM",
            target_modules=list(settings.targets), layers_to_transform=which_layers(settings.layers, self.backbone.layers),
            base_model_name_or_path=self.job.base.directory,
        )  # fmt: skip
        try:
            if self.backbone.peft is None:
                self.backbone.peft = get_peft_model(self.backbone.model, config, adapter_name=CANDIDATE)
            else:
                self.backbone.peft.add_adapter(CANDIDATE, config)
                self.backbone.peft.set_adapter(CANDIDATE)
        except ValueError as error:
            raise BadConfig(f"[learner] targets: {str(error).splitlines()[0]}") from None
        self.backbone._using = CANDIDATE

    def _forward(self) -> objectives.Forward:
        """From the lowest trained layer on if what is below can be kept, else the whole model."""
        cut = min(which_layers(self.settings.layers, self.backbone.layers))
        kept = boundary.between(self.backbone, cut, self.prefixes, [item.ids for item in self.items])
        return kept or objectives.plain(self.backbone)

    def _parameters(self) -> list[Tensor]:
        return [p for name, p in self.backbone.peft.named_parameters() if p.requires_grad and CANDIDATE in name]

    def _fit(self) -> float:
        """Train, keeping the epoch that is right most often on the held-out items; returns the seconds spent on scoring."""
        parameters = self._parameters()
        optimiser = torch.optim.AdamW(parameters, lr=self.settings.lr, betas=(0.9, 0.99), weight_decay=0.0)
        total = self.epochs * math.ceil(len(self.items) / self.settings.batch)
        order = random.Random(self.settings.seed)
        best, kept, waited, scoring, step = (-math.inf, 0.0), [p.detach().clone() for p in parameters], 0, 0.0, 0
        for epoch in range(self.epochs):
            self.backbone.peft.train()
            losses = []
            for batch in self._batches(order):
                for group in optimiser.param_groups:
                    group["lr"] = self.settings.lr * schedule(step, total)
                loss = self._step(optimiser, parameters, batch)
                step += 1
                losses.append(loss)
                self._progress(epoch, step, total, loss)
            self.epochs_run = epoch + 1
            begun = time.perf_counter()
            now = self._on_held()
            scoring += time.perf_counter() - begun
            if now is None or now >= best:
                best, kept, waited = now if now is not None else best, [p.detach().clone() for p in parameters], 0
            else:
                waited += 1
                if waited >= self.settings.patience and step >= self.settings.min_steps:
                    self.early_stopped = True
                    break
            if sum(losses) / len(losses) < LEARNT:
                self.early_stopped = True
                break
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
        self.scorer.forget(CANDIDATE)
        return scoring

    def _step(self, optimiser: torch.optim.Optimizer, parameters: Sequence[Tensor], batch: Sequence[int]) -> float:
        optimiser.zero_grad(set_to_none=True)
        items = [self.items[i] for i in batch]
        loss = objectives.loss(self.backbone, self.forward, self.prefixes[batch[0]], items)
        if not torch.isfinite(loss):
            raise Unavailable("the training loss is not finite; try a smaller [learner] lr")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise Unavailable("the gradient is not finite; try a smaller [learner] lr")
        optimiser.step()
        return loss.item()

    def _batches(self, order: random.Random) -> Iterator[list[int]]:
        """Every item once, in random order; items of similar length and the same prefix share a batch."""
        numbers = list(range(len(self.items)))
        order.shuffle(numbers)
        size = self.settings.batch
        numbers.sort(key=lambda i: (self.prefixes[i], len(self.items[i].ids) // 4))
        groups: list[list[int]] = []
        for i in numbers:
            if groups and len(groups[-1]) < size and self.prefixes[groups[-1][0]] == self.prefixes[i]:
                groups[-1].append(i)
            else:
                groups.append([i])
        order.shuffle(groups)
        yield from groups

    def _on_held(self) -> tuple[float, float] | None:
        """(accuracy, minus log-loss): the log-loss alone would stop while the model still learns, but grows too sure."""
        if len(self.held) < STOP_LEAST:
            return None
        self.backbone.peft.eval()
        self.scorer.forget(CANDIDATE)
        judged = judge(self.scorer, self.job, CANDIDATE, self.held[:STOP_SAMPLE])
        return judged.accuracy, -judged.log_loss

    def _progress(self, epoch: int, step: int, total: int, loss: float) -> None:
        if self.parent is not None and os.getppid() != self.parent:
            raise Unavailable("the daemon that wanted this run is gone")
        share = min(step / total, 1.0)
        jobs.write_atomically(self.directory / jobs.PROGRESS, jobs.Progress(epoch=epoch, progress=share, loss=loss))
        print(f"epoch {epoch + 1}/{self.epochs} step {step}/{total} loss {loss:.4f}", flush=True)


def which_layers(wanted: str, count: int) -> list[int]:
    """`top:15` of 30 layers -> 15..29; more than there are means all."""
    if wanted == "all":
        return list(range(count))
    return list(range(max(0, count - int(wanted.removeprefix("top:"))), count))


def schedule(step: int, total: int) -> float:
    """Linear warm-up, then cosine from 1 to FLOOR."""
    warm = max(1, round(total * WARM_UP))
    if step < warm:
        return (step + 1) / warm
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def _flatten(directory: Path, adapter: str) -> None:
    """PEFT puts a named adapter into a folder of that name; the format others read has the files at the top."""
    nested = directory / adapter
    if nested.is_dir():
        for path in nested.iterdir():
            path.rename(directory / path.name)
        nested.rmdir()
    (directory / "README.md").unlink(missing_ok=True)


def main() -> int:
    """Exit code 0 with report.json written, or 1 with one sentence."""
    arguments = argparse.ArgumentParser(prog="python -m runtime.learning.train")
    arguments.add_argument("job", type=Path, help="the job directory")
    arguments.add_argument("parent", type=int, nargs="?", help="end when this process is gone")
    asked = arguments.parse_args()
    try:
        report = Run(asked.job, asked.parent)()
    except CorrigibleError as error:
        print(error, file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):  # torch has no class for it on a CPU
            raise
        print("out of memory; try a smaller [learner] batch or fewer layers", file=sys.stderr)
        return 1
    jobs.write_atomically(asked.job / jobs.REPORT, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
