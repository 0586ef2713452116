"""A disk in memory that knows what was written and what was synced, as a SQLite VFS; and what it may hold after a power cut.

What a cut may do to writes that no sync followed: any of them is there, lost, or torn at sectors of 512 bytes, in any
order; a file may be as long as it was to become, with zeros; a file that was made or removed is there or not, until the
folder is synced (SQLite does that at the first sync of a new journal or WAL). What it may not do: change bytes that were not written (SQLite counts on that for its default VFS, too).
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import apsw

SECTOR = 512
Survival = Literal["nothing", "everything", "the first ones", "some", "torn"]
SURVIVALS: tuple[Survival, ...] = ("nothing", "everything", "the first ones", "some", "torn")
Write = tuple[int, bytes]  # offset and bytes; no bytes: truncated to offset


@dataclass
class Stored:
    """One file: what everybody reads, what is surely on the plate, and what was done since."""

    live: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Write] = field(default_factory=list)
    made: bool = False  # its name is surely in the folder

    def write(self, offset: int, data: bytes) -> None:
        apply(self.live, (offset, data))
        self.pending.append((offset, data))

    def sync(self) -> None:
        for write in self.pending:
            apply(self.synced, write)
        self.pending.clear()


class Disk:
    """The folder. `before` is called before everything that changes what the plate holds: there the power may go."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.files: dict[str, Stored] = {}
        self.ghosts: dict[str, Stored] = {}  # removed, but perhaps not on the plate
        self.before = before

    def sync_names(self) -> None:
        self.ghosts.clear()
        for file in self.files.values():
            file.made = True

    def after_a_cut(self, rng: random.Random, survival: Survival) -> dict[str, bytes]:
        """One of the states that may be found when the power is back, by name."""
        chance = {"nothing": 0.0, "everything": 1.0}.get(survival, 0.5)  # of an unsynced change of the folder
        found = {name: file for name, file in self.ghosts.items() if rng.random() >= chance}
        found |= {name: file for name, file in self.files.items() if file.made or rng.random() < chance}
        return {name: bytes(_torn(file, rng, survival)) for name, file in found.items()}


def apply(content: bytearray, write: Write) -> None:
    offset, data = write
    if not data:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _torn(file: Stored, rng: random.Random, survival: Survival) -> bytearray:
    content = bytearray(file.synced)
    for write in _survivors(file.pending, rng, survival):
        apply(content, write)
    if survival in ("some", "torn") and rng.random() < 0.2 and len(content) < len(file.live):
        content.extend(bytes(len(file.live) - len(content)))  # the length was kept, the bytes were not
    return content


def _survivors(pending: list[Write], rng: random.Random, survival: Survival) -> list[Write]:
    if survival == "nothing":
        return []
    if survival == "everything":
        return pending
    if survival == "the first ones":
        return pending[: rng.randrange(len(pending) + 1)]
    share = rng.choice((0.1, 0.5, 0.9))
    kept = [write for write in pending if rng.random() < share or survival == "torn"]
    return [piece for write in kept for piece in _pieces(write) if survival == "some" or rng.random() < share]


def _pieces(write: Write) -> list[Write]:
    """A write by the sectors it touches."""
    offset, data = write
    cuts = [0, *range(SECTOR - offset % SECTOR, len(data), SECTOR), len(data)]
    return [(offset + a, data[a:b]) for a, b in itertools.pairwise(cuts)] if data else [write]


class Vfs(apsw.VFS):
    """The disk as SQLite sees it. It has no shared memory, so a WAL needs `locking_mode = EXCLUSIVE`."""

    def __init__(self, name: str, disk: Disk) -> None:
        super().__init__(name, base="")
        self.disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:
        flags[1] = flags[0]
        if name is None:
            return Handle(Disk(), Stored(), names=False)  # a temporary file is nobody's promise
        path = name if isinstance(name, str) else name.filename()
        new = path not in self.disk.files
        if new:
            self.disk.before()
            self.disk.files[path] = Stored()
        journal = bool(flags[0] & (apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL))
        return Handle(self.disk, self.disk.files[path], names=new and journal)

    def xDelete(self, name: str, syncdir: bool) -> None:
        self.disk.before()
        self.disk.ghosts[name] = self.disk.files.pop(name)
        if syncdir:
            self.disk.sync_names()

    def xAccess(self, name: str, flags: int) -> bool:
        return name in self.disk.files

    def xFullPathname(self, name: str) -> str:
        return name


class Handle:
    """An open file. `names`: its first sync is one of the folder, too."""

    def __init__(self, disk: Disk, file: Stored, *, names: bool) -> None:
        self._disk, self._file, self._names = disk, file, names

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._file.live[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.before()
        self._file.write(offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        self._disk.before()
        self._file.write(size, b"")

    def xSync(self, flags: int) -> None:
        self._disk.before()
        self._file.sync()
        if self._names:
            self._disk.sync_names()
            self._names = False

    def xFileSize(self) -> int:
        return len(self._file.live)

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096  # as SQLite's own VFS says

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xLock(self, level: int) -> None: ...
    def xUnlock(self, level: int) -> None: ...
    def xClose(self) -> None: ...
    def xCheckReservedLock(self) -> bool:
        return False


def put_down(found: dict[str, bytes], folder: Path) -> None:
    """Write a state into a real, empty folder."""
    for name, content in found.items():
        (folder / Path(name).name).write_bytes(content)


class Cut(Protocol):
    """When the power went: at which operation, what survived of what was not synced, and what had been promised by then."""

    @property
    def operation(self) -> int: ...
    @property
    def survival(self) -> Survival: ...
    @property
    def told(self) -> list[str]: ...


def report(what: str, promises: str, found: Iterable[tuple[Cut, str]], seed: int) -> int:
    """Print each cut with which something was wrong, and a line over all; the exit status."""
    begun, kinds, bad, promised = time.monotonic(), Counter[str](), 0, 0
    for cut, wrong in found:
        kinds[cut.survival] += 1
        promised += len(cut.told)
        if wrong:
            bad += 1
            print(f"operation {cut.operation}, {cut.survival} survived: {wrong[:200]}")
    survived = ", ".join(f"{name} {n}" for name, n in sorted(kinds.items()))
    print(
        f"{kinds.total()} {what}: {bad} bad, {promised} {promises} looked for, {time.monotonic() - begun:.0f} s, "
        f"seed {seed} (of what was not synced survived: {survived})"
    )
    return 1 if bad else 0
