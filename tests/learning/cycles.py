"""A learner with its releases, real but for the worker and the trainer, which answer as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from runtime import config
from runtime.bus import Bus
from runtime.decision import Serving
from runtime.journal import Journal
from runtime.learning import jobs, learner, registry, trainer
from runtime.learning.learner import Learner
from runtime.learning.releases import Releases
from runtime.learning.unlearning import Unlearning
from runtime.messages import Action, Cycle, Decision, Example, Feedback, Release
from runtime.metrics import Metrics
from runtime.situations import Catalogues
from tests.stages import BRIGHT, DIM, LAMP, decision, percept

FINGERPRINT = (-0.5, -1.5)
OFF = Action(tool="lamp", arguments={"level": "off"})
NOON = 12 * 3600.0
BASE = jobs.Base(directory="nowhere", revision="r1", dtype="float32")
SAFETY = 20.0  # seconds after which a test that hangs is ended


@dataclass
class Worker:
    """Answers the probes as told."""

    fingerprint: Sequence[float] = FINGERPRINT
    loaded: list[str] = field(default_factory=list)

    async def load(self, adapter: str, directory: Path) -> list[float]:
        self.loaded.append(adapter)
        return list(self.fingerprint)

    async def unload(self, adapter: str) -> None:
        self.loaded.remove(adapter)


@dataclass
class Parts:
    learner: Learner
    releases: Releases
    unlearning: Unlearning
    journal: Journal
    bus: Bus
    worker: Worker
    serving: Serving
    store: registry.Registry
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def trainer(self, script: str) -> None:
        """Let this shell script stand in for `python -m runtime.learning.train JOB` (the job is $3)."""
        program, seen = self.folder / "trainer.sh", self.folder / "seen"
        seen.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\n[ -d "$3" ] && cp -r "$3" "{seen}/"\n{script}\n')
        program.chmod(0o755)
        self.monkeypatch.setattr(trainer, "sys", SimpleNamespace(executable=str(program)))

    def trainer_makes(self, *weights: float, recall: float = 1.0, report: bytes = b"") -> None:
        """Let the trainer finish with this adapter."""
        made = self.folder / "made"
        (made / "adapter").mkdir(parents=True, exist_ok=True)
        save_file({"lora": np.array(weights, dtype=np.float32)}, str(made / "adapter" / registry.WEIGHTS))
        (made / "adapter" / registry.CONFIG).write_text("{}")
        (made / "report.json").write_bytes(report or msgspec.json.encode(a_report(recall)))
        self.trainer(f'cp -r "{made}/." "$3/"')

    @property
    def judged_weights(self) -> Path:
        """Of the adapter before it learnt what was held out."""
        made = self.folder / "made" / jobs.JUDGED
        made.mkdir()
        (made / registry.CONFIG).write_text("{}")
        return made / registry.WEIGHTS

    async def cycle(self) -> Cycle:
        async with asyncio.timeout(SAFETY):
            ended = await self.learner.cycle()
        assert msgspec.to_builtins(await self.journal.cycle(ended.id)) == msgspec.json.decode(
            msgspec.json.encode(ended)
        )
        return ended

    def given(self, cycle: Cycle) -> tuple[jobs.Job, list[Example], list[Example]]:
        """What the trainer was given: the job, what to train on, and what was held out. By now it is gone."""
        assert not (self.folder / jobs.JOBS / cycle.id).exists()
        return jobs.read(self.folder / "seen" / cycle.id)

    async def untouched(self) -> bool:
        return self.serving.adapter == "base" and await self.journal.serving() is None


def a_report(recall: float = 1.0) -> jobs.Report:
    return jobs.Report(
        examples=3, holdout=0, seconds=1.0, examples_per_second=3.0, epochs=1.0, early_stopped=False, wins=0, losses=0,
        candidate=jobs.Scores(recall=recall), champion=jobs.Scores(), fingerprint=FINGERPRINT,
    )  # fmt: skip


async def teach(journal: Journal, number: int) -> Feedback:
    said = percept(number, f"situation {number}")
    made: Decision = decision(number, BRIGHT, float(number))
    feedback = Feedback(
        id=f"fb-{number}", decision_id=made.id, kind="correction", source="Ana", at=1.0 + number, action=DIM
    )
    await journal.put(said, made, feedback)
    return feedback


@asynccontextmanager
async def parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taught: int = 3, shadow: int = 0, **settings: Any
) -> AsyncIterator[Parts]:
    monkeypatch.setattr(learner, "POLL", 0.01)
    read = config.load(None, agent={"data": tmp_path}, learner=settings, gate={"shadow": shadow})
    async with Journal.open(tmp_path / "j.db") as journal:
        for number in range(taught):
            await teach(journal, number)
        bus, worker, serving, store = Bus(), Worker(), Serving("base"), registry.Registry(tmp_path / "adapters")
        releases = Releases(
            journal, bus, worker, store, serving, read.gate, Metrics(), lambda: BASE, clock=lambda: 100.0
        )
        unlearning = Unlearning(journal, store, serving, releases, tmp_path / "states")
        stage = Learner(
            journal, bus, Catalogues([{"room": (LAMP,)}]), releases, unlearning, read, Metrics(), lambda: BASE,
            clock=lambda: 100.0,
        )  # fmt: skip
        unlearning.on_due = stage.ask
        yield Parts(stage, releases, unlearning, journal, bus, worker, serving, store, tmp_path, monkeypatch)


async def confirmed(p: Parts) -> Release:
    """The provisional version that serves, in full."""
    newest = await p.journal.serving()
    assert newest is not None
    return await p.releases.confirm(newest, "for the test")


async def released(p: Parts, number: int, *, provisional: bool = False) -> str:
    """A further version that serves."""
    p.trainer_makes(float(number))
    await teach(p.journal, 100 + number)
    ended = await p.cycle()
    if not provisional:
        await confirmed(p)
    return ended.adapter
