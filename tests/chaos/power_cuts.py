"""Power cuts: the journal's own schema, pragmas and transactions on a disk that loses and tears what was not synced.

    python -m tests.chaos.power_cuts [--count 2500] [--seed 0] [--synchronous FULL]

A life begins on an empty disk or on what an earlier cut left, writes some groups through the writer's own `_write`, and may
end at any of its disk operations. The state after the cut is written into a real folder and opened by the real Journal:
whole, no invariant broken, every acknowledged id there. With OFF and NORMAL that must go wrong.

The writing SQLite is apsw's (only it has a VFS in Python), the reading one is the runtime's. The log is folded back every 40 pages
instead of 1,000, so that cuts hit that, too; the log's index is in memory (a VFS in Python has no shared one), as on a plate it is made anew.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw

from runtime.errors import Corrupt
from runtime.journal import _sql
from runtime.journal.chain import Chain
from runtime.journal.opening import SCHEMA
from runtime.journal.rows import row
from runtime.journal.writer import _write
from runtime.messages import Observation
from tests.chaos.crash_points import judge_journal
from tests.chaos.disk import SURVIVALS, Disk, Stored, Survival, Vfs, put_down, report

FILE = "/journal.db"
GROUPS, PUTS = 8, 5  # most of a life, most of a group
CUTS = 12  # of a life
FOLD = 40  # pages of the log


class Connection:
    """An apsw connection as the writer knows one."""

    def __init__(self, vfs: str, synchronous: str) -> None:
        self._connection = apsw.Connection(FILE, vfs=vfs)
        self.in_transaction = False
        pragmas = (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
            "foreign_keys = ON",
        )
        for pragma in (*pragmas, f"wal_autocheckpoint = {FOLD}"):
            self._connection.execute(f"PRAGMA {pragma}")
        if self._connection.pragma("journal_mode") != "wal":
            raise RuntimeError("this SQLite wrote no WAL; the test tests nothing")
        for number, script in enumerate(SCHEMA, start=1):
            if self._connection.pragma("user_version") < number:
                self._connection.execute(f"BEGIN; {_sql(script)} PRAGMA user_version = {number}; COMMIT;")

    def execute(self, sql: str, values: Any = None) -> SimpleNamespace:
        rows = self._connection.execute(sql, values).fetchall()
        self.in_transaction = not self._connection.getautocommit()
        return SimpleNamespace(
            rowcount=self._connection.changes(), fetchall=lambda: rows, fetchone=lambda: next(iter(rows), None)
        )

    def close(self) -> None:
        self._connection.close()


@dataclass
class Cut:
    """When the power went, and what was found."""

    operation: int  # of the life
    survival: Survival
    told: list[str]
    found: dict[str, bytes]


@dataclass
class Life:
    """From one start to its end, with the states that cuts on the way would have left."""

    rng: random.Random
    begin: dict[str, bytes]
    told: list[str]
    synchronous: str = "FULL"
    operation: int = 0
    cuts: list[Cut] = field(default_factory=list)

    def run(self, chance: float) -> None:
        """`chance`: of a cut at each operation of the disk."""

        def before() -> None:
            self.operation += 1
            if self.rng.random() < chance:
                survival = self.rng.choice(SURVIVALS)
                self.cuts.append(Cut(self.operation, survival, [*self.told], disk.after_a_cut(self.rng, survival)))

        disk = Disk(before)
        disk.files = {name: Stored(bytearray(raw), bytearray(raw), made=True) for name, raw in self.begin.items()}
        vfs = Vfs("cuts", disk)
        connection = Connection("cuts", self.synchronous)
        chain = Chain(connection)  # type: ignore[arg-type]
        for _ in range(self.rng.randint(1, GROUPS)):
            group = [self._observation() for _ in range(self.rng.randint(1, PUTS))]
            stored = _write(connection, [[row(one)] for one in group], chain)
            if isinstance(stored, Exception):
                raise stored
            self.told += [one.id for one, new in zip(group, stored, strict=True) if not isinstance(new, Exception)]
        connection.close()
        vfs.unregister()

    def _observation(self) -> Observation:
        number = self.rng.getrandbits(60)
        size = self.rng.choice((4, 4, 700, 9000))
        return Observation(
            id=f"ob-{number:x}", topic=f"home/t{number % 5}", payload=b"2" * size, at=1e9 + number % 10**6
        )


def cuts(count: int, seed: int, synchronous: str = "FULL") -> Iterator[tuple[Cut, str]]:
    """(cut, what was wrong with what it left). Every other life goes on from what a cut of the one before left."""
    rng = random.Random(seed)
    begin: dict[str, bytes] = {}
    told: list[str] = []
    done = 0
    while done < count:
        life = Life(rng, begin, [*told], synchronous)
        life.run(chance=0.06)
        for cut in rng.sample(life.cuts, min(CUTS, len(life.cuts), count - done)):
            done += 1
            wrong = judged(cut)
            yield cut, wrong
            begin, told = ({}, []) if wrong or rng.random() < 0.5 else (cut.found, cut.told)
        if len(told) > 200:
            begin, told = {}, []


def judged(cut: Cut) -> str:
    with tempfile.TemporaryDirectory() as folder:
        put_down(cut.found, Path(folder))
        try:
            return judge_journal(Path(folder), cut.told)
        except Corrupt as error:
            return str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--synchronous", default="FULL", choices=["FULL", "NORMAL", "OFF"])
    options = parser.parse_args()
    what = f"power cuts, synchronous={options.synchronous}"
    return report(what, "acknowledged rows", cuts(options.count, options.seed, options.synchronous), options.seed)


if __name__ == "__main__":
    sys.exit(main())
