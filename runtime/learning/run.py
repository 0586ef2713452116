"""One training run: examples of a job directory -> items -> a candidate -> the adapter's files and a report."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from runtime.config import LearnerConfig
from runtime.errors import Unavailable
from runtime.learning import (
    augmentation,
    boundary,
    candidate,
    cases,
    comparing,
    curation,
    jobs,
    objectives,
    parent,
    thinning,
    tuning,
)
from runtime.learning.evaluate import judge
from runtime.learning.fit import Fit, Group, Renew, Scored, Tell
from runtime.learning.offpolicy import Estimate
from runtime.learning.reference import Drift
from runtime.learning.states import States
from runtime.messages import Example
from runtime.policy.backbone import BASE, Backbone
from runtime.policy.encoder import Encoder, backbone_of
from runtime.policy.matching import scorer_of

CANDIDATE, CHAMPION = "candidate", "champion"
TUNE_SHARE = 0.2  # of the training items, by which a search judges
RECALL_SAMPLE = 48  # training items asked again at the end
RECALL_SHOWN = 16  # the same where held-out items decide and recall is only shown
LEARNT = 0.9  # probability from which an answer counts as learnt
AGAIN = 0.5  # of the learning rate, for going on with what was held out
STOP_SAMPLE = 64  # held-out items asked after every epoch
STOP_LEAST = 50  # held-out items below which they are too noisy to stop by (20 ended a good run after one epoch)


class Run:
    """One training run over one job directory."""

    def __init__(self, directory: Path, backbone: Backbone | None = None, group: Group | None = None) -> None:
        """`backbone`: the job's base model, if it is loaded already."""
        self.directory = directory
        self.group = group or Group()
        self.job, train, held = jobs.read(directory)
        self.logged, self.reference = jobs.read_evidence(directory)
        self.settings = LearnerConfig(**self.job.settings)
        torch.manual_seed(self.settings.seed)
        self.train, self.held = (objectives.allowed(self.job, examples) for examples in (train, held))
        if not self.train:
            raise Unavailable("no example is valid under the present catalogues")
        self.backbone = backbone or backbone_of(self.job.base, self.settings.threads)
        self.scorer = scorer_of(
            self.backbone, self.job.instruction, reply_tokens=self.job.reply_tokens, free_below=0.0,
            catalogue_tokens=self.job.catalogue_tokens,
        )  # fmt: skip
        self._take(self.train)
        self.tuned = self._tune() if self.settings.tune else {}
        self.settings = self.settings.model_copy(update=self.tuned)
        self._draw = random.Random(self.settings.seed)
        self.candidate, self.forward, self.fit = self._parts(
            self.settings, range(len(self.items)), score=self._on_held, tell=self._progress, renew=self._renew
        )

    def _take(self, examples: Sequence[Example]) -> None:
        """These are trained on from here on."""
        self.taught = examples
        if self.settings.augment:
            self.taught = augmentation.augmented(
                examples, self.job.catalogues, copies=self.settings.augment, seed=self.settings.seed
            )
        self.items = objectives.prepare(self.scorer, self.job, self.taught, self.settings.objective)
        self.anchors = self._right_already(examples)
        # all scopes share one prompt unless the catalogue is listed in it, in which case batches are of one scope
        self.prefixes = [tuple(self._prompt_of(e).prefix) for e in self.taught]

    def _right_already(self, examples: Sequence[Example]) -> list[bool]:
        """Of the taught items: was it accepted, or has what serves learnt it? Variants are like what they were made from."""
        learnt = set(self.job.learnt)
        known = {e.id: not e.correction or curation.known(e, learnt) for e in examples}
        found: list[bool] = []
        for example in self.taught:
            found.append(known[example.id] if example.id in known else found[-1])
        return found

    def _parts(
        self,
        settings: LearnerConfig,
        numbers: Sequence[int],
        *,
        score: Callable[[], Scored | None],
        tell: Tell,
        renew: Renew | None = None,
    ) -> tuple[candidate.Candidate, boundary.Boundary | boundary.Plain, Fit]:
        """A fresh candidate, and what trains it on these items."""
        made = candidate.make(self.backbone, settings, self._tokens(), self.job.base.directory)
        if settings.start:
            made.start(Path(settings.start))
        forward = self._forward(made.cut)
        fit = Fit(
            self.backbone, made, forward, settings, [self.items[i] for i in numbers], [self.prefixes[i] for i in numbers],
            group=self.group, score=score, tell=tell, renew=renew, anchors=[self.anchors[i] for i in numbers],
        )  # fmt: skip
        return made, forward, fit

    def _tune(self) -> dict[str, Any]:
        """Settings that do best on a fifth of the training items; what is held out for the gate is not looked at."""
        inner, outer = self._inner_and_outer()
        if not inner or not outer:
            return {}

        def loss(setting: dict[str, Any], epochs: float) -> float:
            settings = self.settings.model_copy(
                update={**setting, "epochs": round(epochs), "seen": 0, "min_steps": 0, "ema": 0.0}
            )
            torch.manual_seed(settings.seed)
            _, forward, fit = self._parts(settings, inner, score=lambda: None, tell=lambda *_: parent.check())
            self._keep(forward)
            fit.run()
            return fit.mean_loss([self.items[i] for i in outer], [self.prefixes[i] for i in outer])

        incumbent = self.settings.model_dump(mode="json")
        best: dict[str, Any] = {}
        with suppress(Unavailable):  # nothing could be trained: the run itself will say why
            best, _ = tuning.search(tuning.pool(incumbent, [], self.settings.seed, self.backbone.layers), loss)
        torch.manual_seed(self.settings.seed)
        return best

    def _inner_and_outer(self) -> tuple[list[int], list[int]]:
        """Numbers of the taught items to train and to judge by in a search; variants stay with what they were made from."""
        known, inner, outer = {example.id for example in self.train}, list[int](), list[int]()
        mine = inner
        for i, example in enumerate(self.taught):
            if example.id in known:
                mine = outer if curation.held_back(example, TUNE_SHARE, self.settings.seed) else inner
            mine.append(i)
        return inner, outer

    def _prompt_of(self, example: Example) -> Any:
        return self.scorer.prompt(self.job.catalogues[example.scope])

    def _tokens(self) -> list[int]:
        """Those that answers are made of."""
        judged = {token for item in self.items for _, token, _ in item.steps}
        return sorted(judged.union(*(rivals for item in self.items for *_, rivals in item.steps)))

    def _forward(self, cut: int) -> boundary.Boundary | boundary.Plain:
        """From the lowest trained layer on, if there is anything below it and it can be started there."""
        if not cut or isinstance(self.backbone, Encoder):
            return boundary.plain(self.backbone)
        where = Path(self.job.states) if self.job.states and self.settings.cache and self.group.rank == 0 else None
        base = self.job.base
        kept = States(where, f"{base.revision}|{base.dtype}|{cut}", self.settings.cache << 20)
        return boundary.Boundary(self.backbone, cut, kept)

    def __call__(self) -> jobs.Report:
        examples = len(self.items)
        champion_right, champion = self._champion()
        started = time.perf_counter()
        computed = self._keep(self.forward)
        scoring = self.fit.run()
        seconds = time.perf_counter() - started - scoring
        passes = len(self.items) * self.fit.epochs_run
        directory = self.directory / jobs.ADAPTER
        self._save(directory)
        held = judge(self.scorer, self.job, CANDIDATE, self.held)
        sample = self._sample()
        recall = judge(self.scorer, self.job, CANDIDATE, sample)
        off_policy, drift = self._off_policy(), self._drift()
        refit = self._refit(directory, sum(held.right) + sum(recall.right), sample)
        broken = tuple(cases.broken(self.job.cases, self._says))
        if refit and broken:
            self._take_back(directory)
            refit, broken = False, tuple(cases.broken(self.job.cases, self._says))
        return jobs.Report(
            examples=examples,
            holdout=len(self.held),
            seconds=round(seconds, 2),
            examples_per_second=round(passes / max(seconds, 1e-9), 2),
            epochs=self.fit.epochs_run,
            early_stopped=self.fit.early_stopped,
            candidate=held.scores(recall.accuracy),
            champion=champion,
            wins=sum(a and not b for a, b in zip(held.right, champion_right, strict=True)),
            losses=sum(b and not a for a, b in zip(held.right, champion_right, strict=True)),
            broken=broken,
            off_policy=off_policy,
            drift=drift,
            refit=refit,
            fingerprint=tuple(self.backbone.fingerprint(CANDIDATE)),
            judged=held.judgements,
            learnt=self._learnt() if self.job.consolidate else (),
            states_computed=computed,
            tuned=self.tuned,
            parameters={**self.job.settings, "epochs": self.fit.epochs},
        )

    def _save(self, directory: Path) -> None:
        """Write the candidate, and see it from here on as it was written."""
        if self.group.rank == 0:
            if self.settings.prune < 1:
                self.candidate.prune(self.settings.prune)
            self.candidate.save(directory)
        self.group.wait()
        self._serve(directory)

    def _refit(self, directory: Path, right: int, sample: Sequence[Example]) -> bool:
        """The judged candidate has proven its recipe; now it learns what it was judged by, too, or a tenth of what people
        taught would never reach the weights. As it was judged it is kept for the next comparison. True if this version
        gives no fewer than the `right` answers that the judged one gave to the held-out and the sampled examples."""
        if not (self.settings.refit and self.held) or self.job.partial:
            return False
        if self.group.rank == 0:
            directory.rename(self.directory / jobs.JUDGED)
        self._take([*self.train, *self.held])
        self._keep(self.forward)
        last = self.settings.model_copy(
            update={
                "epochs": self.settings.refit,
                "lr": self.settings.lr * AGAIN,
                "seen": 0,
                "min_steps": 0,
                "ema": 0.0,
            }
        )
        Fit(
            self.backbone, self.candidate, self.forward, last, self.items, self.prefixes,
            group=self.group, score=lambda: None, tell=lambda *_: parent.check(), renew=self._renew,
            anchors=self.anchors,
        ).run()  # fmt: skip
        self._save(directory)
        now = sum(judge(self.scorer, self.job, CANDIDATE, [*self.held, *sample]).right)
        if now < right:
            self._take_back(directory)
        return now >= right

    def _take_back(self, directory: Path) -> None:
        """The candidate as it was judged is what comes out."""
        if self.group.rank == 0:
            shutil.rmtree(directory)
            (self.directory / jobs.JUDGED).rename(directory)
        self.group.wait()
        self._serve(directory)

    @property
    def _renew(self) -> Renew | None:
        """How the examples vary from epoch to epoch, if they do."""
        varied = self.settings.word_drop and not self.job.partial and not self._compared
        return self._thinned if varied else None

    def _thinned(self) -> list[objectives.Item]:
        """The items of an epoch, most of them without some of their words."""
        items = []
        for item, example in zip(self.items, self.taught, strict=True):
            less = thinning.thinned(example, self.settings.word_drop, self._draw)
            same = less is example
            items.append(
                item if same else objectives.said_otherwise(self.scorer, self.job, item, less, self.settings.objective)
            )
        self.forward.let_go()
        self._keep(self.forward, items, passing=True)
        return items

    @property
    def _compared(self) -> bool:
        """The objective looks at more than the right answer."""
        return self.settings.objective in ("dpo", "kto")

    def _keep(
        self,
        forward: boundary.Boundary | boundary.Plain,
        items: Sequence[objectives.Item] = (),
        *,
        passing: bool = False,
    ) -> int:
        """Have the frozen states of these items, or of all; returns how many had to be computed."""
        rows: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for prefix, item in zip(self.prefixes, items or self.items, strict=True):
            needed = (item, item.rejected, item.other) if self._compared else (item,)
            rows.setdefault(prefix, []).extend(i.ids for i in needed if i is not None)
        return sum(forward.keep(prefix, own, passing=passing) for prefix, own in rows.items())

    def _serve(self, directory: Path | None = None) -> None:
        """Let the scorer see the candidate: as it stands, or as it was written."""
        self.scorer.forget(CANDIDATE)
        self.backbone.unload(CANDIDATE)
        if directory is not None:
            self.backbone.load(CANDIDATE, directory)
            return
        with torch.no_grad():
            self.backbone.put(CANDIDATE, self.candidate.adapter())

    def _says(self, scope: str, text: str) -> str | None:
        """What the candidate does in a situation, as its catalogue writes it; None where there is no such scope."""
        catalogue = self.job.catalogues.get(scope)
        if catalogue is None:
            return None
        return catalogue.render(self.scorer.score([text], catalogue, CANDIDATE)[0].chosen)

    def _sample(self) -> list[Example]:
        """Some of the taught items, newest corrections first: does it give the answers it was taught?"""
        liked = [e for e in self.train if e.reward > 0]
        return sorted(liked, key=lambda e: (e.correction, e.at), reverse=True)[
            : RECALL_SAMPLE if len(self.held) < STOP_LEAST else RECALL_SHOWN
        ]

    def _learnt(self) -> tuple[str, ...]:
        """Lessons that what comes out is sure of, by the weights alone: the memory may leave those to it."""
        lessons = [e for e in (*self.train, *self.held) if e.reward > 0]
        wanted = {e.id: e.action for e in lessons}
        found = judge(self.scorer, self.job, CANDIDATE, lessons).judgements
        return tuple(one.id for one in found if math.exp(one.log_p(wanted[one.id])) >= LEARNT)

    def _champion(self) -> tuple[list[bool], jobs.Scores]:
        """The serving adapter on the same held-out items."""
        name = BASE
        if self.job.champion:
            name = CHAMPION
            self.backbone.load(CHAMPION, Path(self.job.champion))
        judged = judge(self.scorer, self.job, name, self.held)
        recall = judge(self.scorer, self.job, name, self._sample()).accuracy
        return judged.right, judged.scores(recall)

    def _off_policy(self) -> Estimate | None:
        """What it would have earned where chance decided."""
        champion = CHAMPION if self.job.champion else BASE
        return comparing.off_policy(self.scorer, self.job, self.logged, CANDIDATE, champion)

    def _drift(self) -> Drift | None:
        """What the release would change. The first adapter changes nearly everything: that says nothing."""
        if not self.job.champion:
            return None
        return comparing.change(self.scorer, self.job, self.reference, CANDIDATE, CHAMPION)

    def _on_held(self) -> tuple[float, float] | None:
        """(accuracy, minus log-loss): the log-loss alone would stop while the model still learns, but grows too sure."""
        if len(self.held) < STOP_LEAST or self.job.partial:
            return None
        self._serve()
        judged = judge(self.scorer, self.job, CANDIDATE, self.held[:STOP_SAMPLE])
        return judged.accuracy, -judged.log_loss

    def _progress(self, epoch: int, step: int, total: int, loss: float) -> None:
        parent.check()
        if self.group.rank:
            return
        share = min(step / total, 1.0)
        jobs.write_atomically(self.directory / jobs.PROGRESS, jobs.Progress(epoch=epoch, progress=share, loss=loss))
        print(f"epoch {epoch + 1}/{self.fit.epochs} step {step}/{total} loss {loss:.4f}", flush=True)
