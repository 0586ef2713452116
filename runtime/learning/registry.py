"""Every version of the weights, for ever the same under its name: `data/adapters/<id>/`, manifest written last.

The id is the SHA-256 of the weights (and of their lessons, where others made the same weights). A LoRA adapter is in PEFT format (safetensors + JSON), so other servers can
load it. Nothing here imports torch: a file is checked by hash, by format and number by number before it may serve.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from runtime.disk import sync
from runtime.errors import Corrupt, NotFound
from runtime.learning import jobs, tensors
from runtime.learning.trust import ADAPTER, Trust
from runtime.messages import Message

MANIFEST = "manifest.json"
# (configuration, weights) by kind: PEFT's, and our own for whole deltas and output rows
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KINDS = (
    (CONFIG, WEIGHTS),
    ("delta.json", "delta.safetensors"),
    ("delta.json", "head.safetensors"),
)
NAME = re.compile(r"[0-9a-f]{12}")  # so that a name cannot leave the folder
TOLERANCE = 0.05  # nats; rounding between batch shapes and thread counts stays well below, other weights well above


class Manifest(Message, frozen=True, kw_only=True):
    """An adapter's lineage."""

    id: str
    parent: str  # what served when it was made
    revision: str  # of the base model
    files: dict[str, str]  # name -> SHA-256
    lineage: tuple[str, ...]  # ids of the feedback it was trained on
    held_out: tuple[str, ...] = ()  # of these, what it learnt only after it was judged by them
    learnt: tuple[str, ...] = ()  # of these, what it is sure of by itself; only where lessons are consolidated
    judged: dict[str, str] = {}  # name -> SHA-256 of it as it was judged, if it learnt more after that
    parameters: dict[str, Any]
    scores: dict[str, Any]
    fingerprint: tuple[float, ...]
    verdict: str
    created: float
    seal: str = ""  # SHA-256 of the manifest without it; "" in those that were made before there were seals


class Registry:
    """The folder of adapters."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, adapter: str) -> Path:
        """Where an adapter lies. Raises NotFound for anything that is not an id."""
        if not NAME.fullmatch(adapter):
            raise NotFound(f"{adapter[:40]!r} is not an adapter's id; `corrigible adapters` lists them")
        return self.root / adapter

    def judged(self, adapter: str) -> Path:
        """Where an adapter lies as it was judged, before it learnt what it was judged by."""
        apart = self.directory(adapter) / jobs.JUDGED
        return apart if apart.is_dir() else apart.parent

    def publish(self, job: Path, *, parent: str, lineage: Sequence[str], verdict: str, trust: Trust = ADAPTER) -> str:
        """Take over the adapter of a finished job: copy, sync, manifest, rename. Returns its id."""
        made, report = job / jobs.ADAPTER, jobs.read_report(job)
        kind = next((kind for kind in KINDS if (made / kind[1]).is_file()), None)
        if report is None or kind is None:
            raise Corrupt(f"{job} holds no finished adapter")
        files = {name: _sha256(made / name) for name in kind}
        before = {name: _sha256(job / jobs.JUDGED / name) for name in kind} if report.refit else {}
        described, _, apart = jobs.read(job)
        held = tuple(id for e in apart for id in (e.id, *e.also)) if report.refit else ()
        adapter = self._name(files[kind[1]], {*lineage, *held})
        target = self.directory(adapter)
        with suppress(NotFound, Corrupt):
            self.verify(adapter)
            return adapter  # the same weights again; ones that rotted on the disk are stored anew
        drift = replace(report.drift, flipped=()) if report.drift else None  # a version keeps nobody's words
        manifest = Manifest(
            id=adapter, parent=parent, revision=described.base.revision, files=files, lineage=(*lineage, *held), held_out=held, learnt=report.learnt, judged=before,
            parameters=report.parameters, fingerprint=report.fingerprint, verdict=verdict, created=time.time(),
            scores=msgspec.to_builtins({"candidate": report.candidate, "champion": report.champion, "held_out": report.holdout, "trust": trust, "drift": drift, "off_policy": report.off_policy}),
        )  # fmt: skip
        self._store(job, target, manifest)
        return adapter

    def _name(self, weights: str, lineage: AbstractSet[str]) -> str:
        """By what it holds (`weights`, a SHA-256). The same weights from other lessons are another version: what people took back
        must not be among those."""
        names = weights[:12], hashlib.sha256("\n".join([weights, *sorted(lineage)]).encode()).hexdigest()[:12]
        for name in names:
            with suppress(NotFound, Corrupt):
                if set(self.manifest(name).lineage) == lineage:
                    return name
        return names[(self.directory(names[0]) / MANIFEST).is_file()]

    def _store(self, job: Path, target: Path, manifest: Manifest) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        sync(self.root.parent)
        staged = target.with_suffix(".new")
        shutil.rmtree(staged, ignore_errors=True)
        _copy(job / jobs.ADAPTER, staged, manifest.files)
        if manifest.judged:
            _copy(job / jobs.JUDGED, staged / jobs.JUDGED, manifest.judged)
        jobs.write_atomically(staged / MANIFEST, replace(manifest, seal=_seal(manifest)))
        sync(staged / MANIFEST)
        sync(staged)
        shutil.rmtree(target, ignore_errors=True)  # a half-made one from before a crash
        staged.rename(target)
        sync(self.root)

    def manifest(self, adapter: str) -> Manifest:
        """Raises NotFound or Corrupt."""
        path = self.directory(adapter) / MANIFEST
        if not path.is_file():
            raise NotFound(f"there is no adapter {adapter!r}; `corrigible adapters` lists them")
        try:
            raw = path.read_bytes()
            manifest = msgspec.json.decode(raw, type=Manifest)
        except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Corrupt(f"{path} cannot be read: {error}") from None
        sealed = not manifest.seal or (manifest.seal == _seal(manifest) and raw == jobs.as_written(manifest))
        if manifest.id != adapter or not sealed:
            raise Corrupt(f"{path} was changed after it was written; promote another version")
        return manifest

    def list(self) -> list[Manifest]:
        """All complete adapters, newest first; one that cannot be read hides no other."""
        found = []
        for path in self.root.glob("*"):
            with suppress(NotFound, Corrupt):
                found.append(self.manifest(path.name))
        return sorted(found, key=lambda m: m.created, reverse=True)

    def verify(self, adapter: str, revision: str = "") -> Manifest:
        """The manifest of an adapter that is whole, finite and made for this base. Raises Corrupt saying what is not."""
        manifest, directory = self.manifest(adapter), self.directory(adapter)
        if revision and manifest.revision != revision:
            raise Corrupt(f"adapter {adapter} was trained on base {manifest.revision}, this one is {revision}")
        kind = next((kind for kind in KINDS if set(kind) == set(manifest.files)), None)
        if kind is None:
            raise Corrupt(f"adapter {adapter}: its manifest names files that no adapter has; promote another version")
        parts = ((directory, manifest.files), (directory / jobs.JUDGED, manifest.judged))
        _nothing_else(directory, {directory / MANIFEST, *(part / name for part, files in parts for name in files)})
        for part, files in parts:
            for name, expected in files.items():
                path = part / name
                if not path.is_file() or _sha256(path) != expected:
                    raise Corrupt(f"adapter {adapter}: {name} is missing or changed on disk; promote another version")
        _scan(directory / kind[1])
        return manifest

    def remove_taught_by(self, feedback: Collection[str], *, protected: set[str]) -> tuple[str, ...]:
        """Remove every version that names one of these in its lineage, but a protected one; their ids."""
        named = (m for m in self.list() if not set(feedback).isdisjoint(m.lineage))
        gone = tuple(m.id for m in named if m.id not in protected)
        for adapter in gone:
            shutil.rmtree(self.directory(adapter), ignore_errors=True)
        return gone

    def prune(self, keep: int, *, protected: set[str]) -> None:
        """Remove the oldest beyond `keep`, never a protected one."""
        for manifest in self.list()[keep:]:
            if manifest.id not in protected:
                shutil.rmtree(self.directory(manifest.id), ignore_errors=True)


def same_fingerprint(adapter: str, trained: Sequence[float], served: Sequence[float]) -> None:
    """Raises Corrupt if what the worker would serve is not what the trainer measured."""
    if len(trained) != len(served) or any(not abs(a - b) <= TOLERANCE for a, b in zip(trained, served, strict=True)):
        raise Corrupt(f"adapter {adapter} does not answer the probes as it did when it was trained; it is not served")


def _scan(path: Path) -> None:
    """Every number of a safetensors file is finite (a NaN-filled file loads without complaint otherwise)."""
    file = tensors.File(path)
    for name in file:
        if not np.isfinite(file.read(name)).all():
            raise Corrupt(f"{path}: tensor {name} holds numbers that are not finite")


def _seal(manifest: Manifest) -> str:
    return hashlib.sha256(msgspec.json.encode(replace(manifest, seal=""))).hexdigest()


def _nothing_else(directory: Path, known: AbstractSet[Path]) -> None:
    """Only real files that the manifest names: what a link points to may change after it was looked at, and what nobody
    named may be of a kind that carries code, for another program that loads the folder."""
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink():
            raise Corrupt(f"{path} is a link, and an adapter has none; promote another version")
        if not path.is_dir() and path not in known:
            raise Corrupt(f"{path} belongs to no adapter; remove it, or promote another version")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(source: Path, target: Path, names: Collection[str]) -> None:
    target.mkdir()
    for name in names:
        shutil.copyfile(source / name, target / name)
        sync(target / name)
    sync(target)
