"""Planted bugs in how versions are kept and taken into service. No message shows them: power cuts and spoilt adapters have to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from runtime.disk import sync, sync_all
from runtime.errors import Corrupt
from runtime.learning import jobs, registry
from runtime.learning.registry import Registry
from tests.chaos.adapter_mutants import Trial, mutants, wrong
from tests.chaos.folder_cuts import cuts

CUTS = 400
SPOILT = 160  # a few of every kind of mutant


@dataclass(frozen=True)
class Bug:
    """`trial` yields what was wrong, a text a try; `says` must be in one of them."""

    planted: Callable[[], AbstractContextManager[Any]]
    trial: Callable[[], Iterator[str]]
    says: str


def hunt(name: str) -> str:
    """The first sentence that tells of the bug, "" if none does."""
    bug = BUGS[name]
    with bug.planted():
        return next((said for said in bug.trial() if bug.says in said), "")


def power_cuts() -> Iterator[str]:
    return (said for _, said in islice(cuts(CUTS, seed=0), CUTS))


def spoilt_adapters() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Path(folder))
        yield from (f"{name}: {wrong(why)}" for name, why in mutants(trial, Path(folder) / "mutants", SPOILT, seed=1))


def no_dir_fsync() -> AbstractContextManager[Any]:
    return patch.object(registry, "sync", lambda path: None if path.is_dir() else sync(path))


def no_file_fsync() -> AbstractContextManager[Any]:
    return patch.object(registry, "sync", lambda path: sync(path) if path.is_dir() else None)


def in_place_adapter() -> AbstractContextManager[Any]:
    """Written where it is served from, and the manifest first; all of it is synced before it is promised."""

    def store(self: Registry, job: Path, target: Path, manifest: registry.Manifest) -> None:
        target.mkdir(parents=True, exist_ok=True)
        jobs.write_atomically(target / registry.MANIFEST, replace(manifest, seal=registry._seal(manifest)))
        shutil.copytree(job / jobs.ADAPTER, target, dirs_exist_ok=True)
        if manifest.judged:
            shutil.copytree(job / jobs.JUDGED, target / jobs.JUDGED, dirs_exist_ok=True)
        sync_all(target)
        sync(self.root)

    return patch.object(Registry, "_store", store)


@contextmanager
def nan_gate_off() -> Iterator[None]:
    """Neither the scan, nor a comparison of answers that a NaN does not pass by itself."""

    def same(adapter: str, trained: Sequence[float], served: Sequence[float]) -> None:
        if any(abs(a - b) > registry.TOLERANCE for a, b in zip(trained, served, strict=True)):
            raise Corrupt(f"adapter {adapter} answers otherwise")

    with ExitStack() as stack:
        stack.enter_context(patch.object(registry, "_scan", lambda path: None))
        stack.enter_context(patch.object(registry, "same_fingerprint", same))
        yield


BUGS = {
    "no_dir_fsync": Bug(no_dir_fsync, power_cuts, "was published and is gone"),
    "no_file_fsync": Bug(no_file_fsync, power_cuts, "missing or changed on disk"),
    "in_place_adapter": Bug(in_place_adapter, power_cuts, "missing or changed on disk"),
    "nan_gate_off": Bug(nan_gate_off, spoilt_adapters, "SERVED"),
}
