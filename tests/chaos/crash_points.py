"""Crash points: a victim is killed at its N-th write, sync, open or rename of the data, by strace; what it was told is safe must be there.

    python -m tests.chaos.crash_points [--count 320] [--seed 0]

First the victim runs unharmed under strace, which tells the paths it touches and how often it makes each system call on
them (counted by thread, as strace injects). Then one run a point. That a kill really happened is seen in the exit status;
a run without one is an error of this harness.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from runtime.journal import Journal, doctor
from runtime.learning.registry import MANIFEST, Registry
from runtime.messages import Action, Example
from tests.chaos.victims import LINEAGE
from tests.learning.test_registry import finished

REPOSITORY = Path(__file__).parents[2]
PYTHON = os.path.realpath(sys.executable)  # a shim would be what strace injects into
CALLS = (  # what changes something on the disk, or its order
    "pwrite64", "write", "fdatasync", "fsync", "openat", "ftruncate", "unlink", "unlinkat", "rename", "mkdir", "rmdir",
    "sendfile", "copy_file_range", "fallocate",
)  # fmt: skip
LINE = re.compile(r"^(\d+)\s+(\w+)\(")


@dataclass(frozen=True)
class Point:
    """The `number`-th `call` of a thread on the victim's data."""

    victim: str
    call: str
    number: int


@dataclass(frozen=True)
class Trace:
    """What an unharmed run does."""

    paths: tuple[str, ...]
    calls: dict[str, int]  # name -> most that one thread makes

    def points(self, victim: str) -> list[Point]:
        return [Point(victim, call, n + 1) for call, most in sorted(self.calls.items()) for n in range(most)]


class Scene:
    """A folder in which one victim works again and again, always under the same paths."""

    def __init__(
        self, folder: Path, victim: str, prepare: Callable[[Path], None], judge: Callable[[Path, list[str]], str]
    ) -> None:
        self.victim = victim
        self.root, self.history = folder / "data", folder / "history"
        self._prepared, self._prepare, self.judge = folder / "prepared", prepare, judge
        self._prepared.mkdir(parents=True)
        prepare(self._prepared)
        self.trace = self._trace(folder / "trace")

    def kill(self, point: Point) -> str:
        """Run up to the point; what is wrong afterwards, "" for nothing. Raises RuntimeError if nobody was killed."""
        self._reset()
        paths = [word for path in self.trace.paths for word in ("-P", path)]
        inject = f"inject={point.call}:signal=SIGKILL:when={point.number}"
        status = self._run("-qq", "-o", "/dev/null", *paths, "-e", f"trace={point.call}", "-e", inject)
        if status != -signal.SIGKILL:
            raise RuntimeError(f"{point} killed nobody (exit status {status}); the crash test tests nothing")
        return self.judge(self.root, self.told())

    def told(self) -> list[str]:
        return self.history.read_text().split("\n")[:-1] if self.history.exists() else []

    def _trace(self, log: Path) -> Trace:
        self._reset()
        status = self._run("-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}")
        if status or not self.told():
            raise RuntimeError(f"the victim {self.victim!r} does not even run unharmed (exit status {status})")
        lines = [line for line in log.read_text(errors="replace").splitlines() if f"{self.root}" in line]
        found = re.compile(rf'(?<=[<"]){re.escape(str(self.root))}[^">]*')
        paths = sorted({path.removesuffix(" (deleted)") for line in lines for path in found.findall(line)})
        counted = Counter(match.groups() for line in lines if (match := LINE.match(line)))
        calls = {call: max(n for (_, other), n in counted.items() if other == call) for _, call in counted}
        return Trace(paths=tuple(paths), calls=calls)

    def _reset(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self._prepared, self.root)
        self.history.unlink(missing_ok=True)

    def _run(self, *options: str) -> int:
        command = [
            "strace",
            "-f",
            *options,
            PYTHON,
            "-m",
            "tests.chaos.victims",
            self.victim,
            str(self.root),
            str(self.history),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path[1:]])}
        return subprocess.run(
            command, cwd=REPOSITORY, env=environment, check=False, stderr=subprocess.DEVNULL
        ).returncode


# --- the two victims and what must be true after any crash ------------------------------------------------------------


def journal_scene(folder: Path, victim: str = "fill") -> Scene:
    return Scene(folder, victim, lambda root: None, judge_journal)


def judge_journal(root: Path, told: list[str]) -> str:
    """The journal opens again, is whole, and has every id that was acknowledged."""
    path = root / "journal.db"
    asyncio.run(_reopen(path))
    with closing(sqlite3.connect(path)) as connection:
        checked = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if checked != "ok":
        return f"integrity_check: {checked}"
    broken = [f"{f.invariant} {f.detail}" for f in doctor.examine(path) if f.state == "broken"]
    lost = doctor.missing(path, told)
    return "; ".join([*broken, *(f"{id} was acknowledged and is lost" for id in lost)])


async def _reopen(path: Path) -> None:
    async with Journal.open(path) as journal:
        await journal.counts()


def registry_scene(folder: Path) -> Scene:
    prepare, job = registry_scene_begin(folder)
    return Scene(folder, "publish", prepare, lambda root, told: judge_registry(root, told, job))


def registry_scene_begin(folder: Path) -> tuple[Callable[[Path], None], Path]:
    """What makes the registry in a folder, and the job to publish there. A version is there already, and what an earlier crash
    left of the one that the job holds; that one learnt more after it was judged, so it has two sets of files."""
    held = [Example(id="fb-3", scope="hall", text="dark", action=Action(tool="nothing"), at=1.0)]
    folder.mkdir(parents=True)
    finished(folder / "first", 0.1)
    finished(folder / "job", 0.2, held)

    def prepare(root: Path) -> None:
        registry = Registry(root / "adapters")
        _, half = (
            registry.publish(folder / job, parent="base", lineage=LINEAGE, verdict="better") for job in ("first", "job")
        )
        (registry.directory(half) / MANIFEST).unlink()
        shutil.copytree(registry.directory(half), registry.directory(half).with_suffix(".new"))

    return prepare, folder / "job"


def judge_registry(root: Path, told: list[str], job: Path) -> str:
    """The old version is whole; the new one is whole or not there at all; it can be published (again) afterwards."""
    registry = Registry(root / "adapters")
    found = [registry.verify(manifest.id, "rev1").id for manifest in registry.list()]
    lost = [f"{id} was published and is gone" for id in told if id not in found]
    again = registry.publish(job, parent="base", lineage=LINEAGE, verdict="better")
    registry.verify(again, "rev1")
    if not 1 <= len(found) <= 2 or len(registry.list()) != 2:
        lost.append(f"{len(found)} versions after the crash, {len(registry.list())} after publishing again")
    return "; ".join(lost)


SCENES = {"journal": journal_scene, "registry": registry_scene}


def chosen(points: list[Point], count: int, rng: random.Random) -> list[Point]:
    """`count` points: the kinds of call take turns, each from a shuffled list, so that no rare one is left out."""
    kinds: dict[str, list[Point]] = {}
    for point in points:
        kinds.setdefault(point.call, []).append(point)
    for kind in kinds.values():
        rng.shuffle(kind)
    turns = itertools.zip_longest(*kinds.values())
    return [point for turn in turns for point in turn if point is not None][:count]


def crashes(folder: Path, count: int, seed: int) -> Iterator[tuple[Point, str]]:
    """(point, what was wrong after it): a third of them in the registry, as far as it has so many."""
    scenes = {name: make(folder / name) for name, make in SCENES.items()}
    rng = random.Random(seed)
    small = chosen(scenes["registry"].trace.points("registry"), count // 3, rng)
    large = chosen(scenes["journal"].trace.points("journal"), count - len(small), rng)
    for point in (*small, *large):
        yield point, scenes[point.victim].kill(point)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun, killed, bad = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        for point, wrong in crashes(Path(folder), options.count, options.seed):
            killed[f"{point.victim} {point.call}"] += 1
            if wrong:
                bad += 1
                print(f"{point}: {wrong}")
    kinds = ", ".join(f"{name} {n}" for name, n in sorted(killed.items()))
    print(
        f"{killed.total()} crash points, each with its kill, {bad} bad, {time.monotonic() - begun:.0f} s, seed {options.seed} ({kinds})"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
