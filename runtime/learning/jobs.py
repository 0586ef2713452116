"""The job directory: everything the trainer gets and gives, as files, so that it needs neither database nor daemon.

It holds what people said, so it is there only as long as the job: what they take back must be in no file.

job.json       what to do               progress.json  how far it is (rewritten)
train.jsonl    examples to train on     report.json    what came out (written last)
held.jsonl     examples to be judged by adapter/       the adapter (safetensors)
logged.jsonl   decisions by chance      judged/        as it was judged, before it saw those too
reference.jsonl  the reference set      trainer.log    what it printed
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from runtime.catalogue import Catalogue
from runtime.errors import Corrupt
from runtime.learning.cases import Case
from runtime.learning.offpolicy import Estimate, Logged
from runtime.learning.reference import Drift, Reference
from runtime.messages import Action, Example, Message

JOBS = "jobs"  # folder of them all in the data directory
JOB, TRAIN, HELD, LOGGED, REFERENCE, PROGRESS, REPORT, ADAPTER, JUDGED, OUTPUT = (
    "job.json", "train.jsonl", "held.jsonl", "logged.jsonl", "reference.jsonl", "progress.json", "report.json", "adapter", "judged",
    "trainer.log",
)  # fmt: skip


class Base(Message, frozen=True, kw_only=True):
    """The base model as the policy worker resolved it, so that both train and serve the same one."""

    directory: str
    revision: str  # hash that names the weights
    dtype: str


class Job(Message, frozen=True, kw_only=True):
    base: Base
    instruction: str
    catalogues: dict[str, Catalogue]  # scope -> catalogue
    champion: str = ""  # directory of the serving adapter; "" = the base model
    settings: dict[str, Any] = {}  # [learner] of config.toml
    reply_tokens: int = 64
    catalogue_tokens: int = 0
    partial: bool = False  # going on from the champion with a part of the examples: no time for scoring every epoch
    cases: tuple[Case, ...] = ()  # what the candidate must pass
    consolidate: bool = False  # ask in the end which lessons the candidate has learnt
    learnt: tuple[str, ...] = ()  # ids of the feedback that what serves was trained on
    states: str = ""  # directory where frozen states are kept from cycle to cycle; "" = nowhere


class Scores(Message, frozen=True, kw_only=True):
    """Of one adapter on the held-out items; `recall` is the share of (a sample of) the training answers it gives."""

    accuracy: float = 0.0
    macro_f1: float = 0.0
    log_loss: float = 0.0
    recall: float = 0.0


class Judgement(Message, frozen=True, kw_only=True):
    """What the candidate says of one held-out example: its likeliest actions, and the right one."""

    id: str
    actions: tuple[Action, ...]
    log_probs: tuple[float, ...]

    def log_p(self, action: Action) -> float:
        """Of one of them; minus infinity for any other."""
        return self.log_probs[self.actions.index(action)] if action in self.actions else -math.inf


class Progress(Message, frozen=True, kw_only=True):
    epoch: float
    progress: float  # in [0, 1]
    loss: float


class Report(Message, frozen=True, kw_only=True):
    examples: int  # trained on
    holdout: int  # items both sides were scored on
    seconds: float
    examples_per_second: float  # example passes of training a second, model load and scoring not counted
    epochs: float
    early_stopped: bool
    candidate: Scores
    champion: Scores
    wins: int  # held-out items only the candidate has right
    losses: int
    broken: tuple[str, ...] = ()  # cases of `[gate] must_pass` that the candidate fails, as sentences
    fingerprint: tuple[float, ...]
    off_policy: Estimate | None = None  # on decisions in which chance had a part; None = there are none
    drift: Drift | None = None  # on the reference set; None = no trained champion, or no set yet
    new: float = 1.0  # share of the examples that the champion had not learnt
    partial: bool = False  # it went on from the champion with the new examples and some old ones
    refit: bool = False  # after it was judged it learnt what it was judged by, too
    tuned: dict[str, Any] = {}  # settings that a search has found better
    judged: tuple[Judgement, ...] = ()  # from which the memory's part in decisions is learnt
    learnt: tuple[str, ...] = ()  # lessons whose right answer the candidate is sure of, if the job asks for that
    states_computed: int = 0  # frozen states that were not known from an earlier cycle
    parameters: dict[str, Any] = {}


@contextmanager
def folder(data: Path, name: str) -> Iterator[Path]:
    """Where a job's directory may be written inside the block; nothing is left of it after that."""
    directory = (data / JOBS / name).absolute()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def tidy(data: Path) -> None:
    """Remove what a killed daemon left behind."""
    shutil.rmtree(data / JOBS, ignore_errors=True)


def write(
    directory: Path, job: Job, train: Sequence[Example], held: Sequence[Example], logged: Sequence[Logged] = (),
    reference: Sequence[Reference] = (),
) -> None:  # fmt: skip
    """Make the directory; job.json is written last, so a half-written job is not a job."""
    directory.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Sequence[Message]] = {TRAIN: train, HELD: held, LOGGED: logged, REFERENCE: reference}
    for name, messages in rows.items():
        (directory / name).write_bytes(b"".join(msgspec.json.encode(m) + b"\n" for m in messages))
    write_atomically(directory / JOB, job)


def read(directory: Path) -> tuple[Job, list[Example], list[Example]]:
    """Raises Corrupt naming the file that cannot be read."""
    return (
        _decode(directory / JOB, Job),
        _lines(directory / TRAIN, Example),
        _lines(directory / HELD, Example),
    )


def read_evidence(directory: Path) -> tuple[list[Logged], list[Reference]]:
    """What both sides are compared by besides examples; a job made by hand may lack it."""
    logged, reference = directory / LOGGED, directory / REFERENCE
    return (
        _lines(logged, Logged) if logged.exists() else [],
        _lines(reference, Reference) if reference.exists() else [],
    )


def read_progress(directory: Path) -> Progress | None:
    path = directory / PROGRESS
    return _decode(path, Progress) if path.exists() else None


def read_report(directory: Path) -> Report | None:
    path = directory / REPORT
    return _decode(path, Report) if path.exists() else None


def write_atomically(path: Path, message: Message) -> None:
    """Readers see the old file or the new one, never half of one."""
    beside = path.with_suffix(".new")
    beside.write_bytes(as_written(message))
    os.replace(beside, path)


def as_written(message: Message) -> bytes:
    return msgspec.json.format(msgspec.json.encode(message), indent=1)


def _lines(path: Path, kind: type[Any]) -> list[Any]:
    try:
        return [msgspec.json.decode(line, type=kind) for line in path.read_bytes().splitlines() if line]
    except (OSError, msgspec.MsgspecError) as error:
        raise Corrupt(f"{path} cannot be read: {error}") from None


def _decode(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise Corrupt(f"{path} cannot be read: {error}") from None
