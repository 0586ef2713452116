"""Power cuts while a version is published: the registry must have the version that was promised, whole, or none of it.

    python -m tests.chaos.folder_cuts [--count 2000] [--seed 0]

Publishing really happens; every change of a name, every open file and every sync of it is seen (audit hook, `os.fsync`), and
before any of them the power may go. A change of a name is on the plate once its folder was synced, a file's bytes once the file
was; before that either may be there or not, in any combination, and a file may be empty, cut short or full of zeros.
A rename is whole or did not happen (POSIX; ext4, XFS and btrfs keep to it).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import CorrigibleError
from runtime.learning.registry import Registry
from tests.chaos.crash_points import judge_registry, registry_scene_begin
from tests.chaos.disk import SURVIVALS, Survival, report
from tests.chaos.victims import LINEAGE

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(eq=False)
class Entry:
    """A file or folder, whatever it is called by now."""

    names: dict[str, Entry] | None = None  # of a folder, as everybody sees them
    kept: dict[str, Entry] = field(default_factory=dict)  # surely on the plate
    live: bytes = b""  # of a file that is gone
    synced: bytes = b""  # of a file, surely on the plate
    whole: bool = False  # nothing was written since


Change = list[
    tuple[Entry, str, Entry | None]
]  # names that come and go together: folder, name, what it names from now on
Found = dict[str, bytes | None]  # path below the root -> bytes; None: a folder


class Plate:
    """What is on the disk below `root`, and what only seems to be. `before` is called before anything changes."""

    def __init__(self, root: Path, before: Callable[[], None] = lambda: None) -> None:
        self._path, self.before = root, before
        self._root = _as_found(root)
        self._pending: list[Change] = []

    def written(self, path: Path) -> None:
        """A file is opened in order to write it, and perhaps made."""
        self.before()
        folder, old = self._at(path.parent), self._at(path)
        if old is not None:
            old.whole = False
        elif folder is not None:
            self._change([(folder, path.name, Entry())])

    def made(self, path: Path) -> None:
        self.before()
        if (folder := self._at(path.parent)) is not None and self._at(path) is None:
            self._change([(folder, path.name, Entry(names={}))])

    def removed(self, path: Path) -> None:
        self.before()
        folder, entry = self._at(path.parent), self._at(path)
        if folder is None or entry is None:
            return
        if entry.names is None:
            entry.live = path.read_bytes()
        self._change([(folder, path.name, None)])

    def renamed(self, old: Path, new: Path) -> None:
        self.before()
        here, there, entry = self._at(old.parent), self._at(new.parent), self._at(old)
        if here is not None and there is not None:
            self._change([(here, old.name, None), (there, new.name, entry)])

    def synced(self, path: Path) -> None:
        self.before()
        entry = self._at(path)
        if entry is None:
            return
        if entry.names is None:
            entry.synced, entry.whole = path.read_bytes(), True
            return
        for change in [change for change in self._pending if any(folder is entry for folder, _, _ in change)]:
            _apply(change, lambda folder: folder.kept)
            self._pending.remove(change)

    def after_a_cut(self, rng: random.Random, survival: Survival) -> Found:
        """One of the states that may be found when the power is back."""
        count = len(self._pending)
        chosen = {
            "nothing": [], "everything": self._pending, "the first ones": self._pending[: rng.randint(0, count)]
        }.get(survival, [change for change in self._pending if rng.random() < 0.5])  # fmt: skip
        views: dict[int, dict[str, Entry]] = {}
        for change in chosen:
            _apply(change, lambda folder: views.setdefault(id(folder), dict(folder.kept)))
        return dict(self._walk(self._root, "", views, rng, survival))

    def _walk(
        self, folder: Entry, at: str, views: dict[int, dict[str, Entry]], rng: random.Random, survival: Survival
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, entry in sorted(views.get(id(folder), folder.kept).items()):
            path = f"{at}{name}"
            if entry.names is None:
                yield path, self._bytes(entry, rng, survival)
            else:
                yield path, None
                yield from self._walk(entry, f"{path}/", views, rng, survival)

    def _bytes(self, entry: Entry, rng: random.Random, survival: Survival) -> bytes:
        live = self._live(entry)
        if entry.whole or survival == "nothing":
            return entry.synced
        if survival == "everything":
            return live
        return rng.choice((b"", live, live[: rng.randint(0, len(live))], bytes(len(live))))

    def _live(self, entry: Entry) -> bytes:
        path = next((path for path, other in _paths(self._root, self._path) if other is entry), None)
        return entry.live if path is None else path.read_bytes()

    def _at(self, path: Path) -> Entry | None:
        entry: Entry | None = self._root
        for name in path.relative_to(self._path).parts:
            entry = entry.names.get(name) if entry is not None and entry.names is not None else None
        return entry

    def _change(self, change: Change) -> None:
        _apply(change, lambda folder: folder.names if folder.names is not None else {})
        self._pending.append(change)


def _apply(change: Change, names: Callable[[Entry], dict[str, Entry]]) -> None:
    for folder, name, entry in change:
        if entry is None:
            names(folder).pop(name, None)
        else:
            names(folder)[name] = entry


def _as_found(path: Path) -> Entry:
    """What was there before is safe."""
    if path.is_file():
        return Entry(synced=path.read_bytes(), whole=True)
    names = {child.name: _as_found(child) for child in path.iterdir()}
    return Entry(names=names, kept=dict(names))


def _paths(entry: Entry, path: Path) -> Iterator[tuple[Path, Entry]]:
    yield path, entry
    for name, child in (entry.names or {}).items():
        yield from _paths(child, path / name)


# --- what a program does, as the plate sees it ------------------------------------------------------------------------

_watching: list[tuple[Plate, Path]] = []


@contextmanager
def watched(plate: Plate, root: Path) -> Iterator[None]:
    """Tell the plate whatever this thread's code does below `root`. One at a time."""
    if not _hooked:
        sys.addaudithook(_heard)
        _hooked.append(True)
    fsync = os.fsync

    def seen(handle: Any) -> None:
        if (path := _below(f"/proc/self/fd/{handle}", -1)) is not None:
            _tell(plate.synced, path)
        fsync(handle)

    os.fsync = seen  # type: ignore[assignment]
    _watching.append((plate, root))
    try:
        yield
    finally:
        _watching.clear()
        os.fsync = fsync


_hooked: list[bool] = []  # an audit hook cannot be taken out again


def _heard(event: str, told: tuple[Any, ...]) -> None:
    if not _watching:
        return
    plate, _ = _watching[0]
    if event == "open" and isinstance(told[2], int) and told[2] & WRITING:
        _tell(plate.written, _below(told[0], -1))
    elif event == "os.mkdir":
        _tell(plate.made, _below(told[0], told[2]))
    elif event in ("os.remove", "os.rmdir"):
        _tell(plate.removed, _below(told[0], told[1]))
    elif event == "os.rename":
        _tell(plate.renamed, _below(told[0], told[2]), _below(told[1], told[3]))


def _below(name: object, folder: int) -> Path | None:
    """The absolute path, if it is below the root; `folder`: the handle it is relative to, -1 for none."""
    if not isinstance(name, str | Path) or not _watching:
        return None
    path = Path(os.readlink(f"/proc/self/fd/{folder}")) / name if folder >= 0 else Path(name)
    if path.parent == Path("/proc/self/fd"):
        path = Path(os.readlink(path))
    return path if path.is_relative_to(_watching[0][1]) else None


def _tell(listener: Callable[..., None], *paths: Path | None) -> None:
    """What the plate itself opens and reads is not part of the story."""
    if any(path is None for path in paths):
        return
    story = _watching.copy()
    _watching.clear()
    try:
        listener(*paths)
    finally:
        _watching.extend(story)


# --- the registry under it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """`told`: the versions that had been promised by then."""

    operation: int
    survival: Survival
    found: Found
    told: list[str]


def cuts(count: int, seed: int) -> Iterator[tuple[Cut, str]]:
    """(cut, what was wrong with what it left)."""
    rng, done = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        prepare, job = registry_scene_begin(Path(folder) / "scene")
        while done < count:
            root = Path(folder).resolve() / f"life{done}"
            root.mkdir()
            prepare(root)
            for cut in life(root, job, rng)[: count - done]:
                done += 1
                yield cut, judged(cut, job)


def life(root: Path, job: Path, rng: random.Random) -> list[Cut]:
    """Publish once; the cuts that might have happened meanwhile and just after."""
    told: list[str] = []
    made: list[Cut] = []
    operations = 0

    def before() -> None:
        nonlocal operations
        operations += 1
        if rng.random() < 0.5 or told:
            survival = rng.choice(SURVIVALS)
            made.append(Cut(operations, survival, plate.after_a_cut(rng, survival), [*told]))

    plate = Plate(root, before)
    with watched(plate, root):
        told.append(Registry(root / "adapters").publish(job, parent="base", lineage=LINEAGE, verdict="better"))
    for _ in SURVIVALS:
        before()
    return made


def judged(cut: Cut, job: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in cut.found.items():
            path = Path(folder) / name
            path.mkdir() if content is None else path.write_bytes(content)
        try:
            return judge_registry(Path(folder), cut.told, job)
        except (CorrigibleError, OSError) as error:
            return str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = cuts(options.count, options.seed)
    return report("power cuts of a registry", "published versions", found, options.seed)


if __name__ == "__main__":
    sys.exit(main())
