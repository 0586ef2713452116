"""Numbers of producers: whatever order, copies and restarts, no false gap and no missed one."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.bus import Bus
from runtime.catalogue import DO_NOTHING, Catalogue
from runtime.errors import BadInput
from runtime.ingest import Ingest
from runtime.journal import Journal, Settled, doctor
from runtime.marks import HOLES, PATIENCE, ROWS, Counter, Marks, Numbered, numbered
from runtime.messages import Observation
from runtime.metrics import Metrics
from runtime.table import CorrectionTable


@given(st.lists(st.integers(1, 60), max_size=80))
def test_holes_are_what_is_missing_below_the_highest(numbers: list[int]) -> None:
    counter = Counter.at()
    for number in numbers:
        counter.hear(number)
    missing = set(range(1, max(numbers, default=0) + 1)) - set(numbers)
    assert {n for first, last in counter.holes() for n in range(first, last + 1)} == missing
    assert counter.upto == min(missing, default=max(numbers, default=0) + 1) - 1


@pytest.mark.parametrize(
    ("told", "place"),
    [
        ({"producer": "p", "boot": "b", "seq": "7"}, ("p", "b", 7)),
        ({"producer": "p", "boot": "b", "seq": "0"}, None),
        ({"producer": "p", "boot": "b", "seq": "-1"}, None),
        ({"producer": "p", "boot": "b", "seq": "٣"}, None),
        ({"producer": "p", "boot": "b", "seq": "9" * 30}, None),
        ({"producer": "p", "seq": "7"}, None),
        ({"boot": "b", "seq": "7"}, None),
    ],
)
def test_only_what_is_numbered_as_it_should_be_counts(told: dict[str, str], place: tuple[str, str, int] | None) -> None:
    assert numbered(told) == place


class Door:
    """Ingest over a real journal, with a clock of its own."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.now = journal, 0.0
        self.ingest = Ingest(journal, Bus(), CorrectionTable(), lambda scope: Catalogue(tools=(DO_NOTHING,)), Metrics())
        self.marks = self.ingest.marks = Marks(journal, Metrics(), clock=lambda: self.now, monotonic=lambda: self.now)

    async def hear(self, number: int, payload: bytes = b"1") -> None:
        told = {"producer": "p", "boot": "b", "seq": str(number)}
        await self.ingest.emit(Observation(id=f"t:m{number}", topic="t", payload=payload, at=self.now, properties=told))

    async def wait(self) -> None:
        """As long as a number may come late."""
        await self.marks.look()
        self.now += PATIENCE
        await self.marks.look()

    async def missing(self) -> set[int]:
        return {n for gap in await self.journal.gaps() if gap.filled is None for n in range(gap.first, gap.last + 1)}


@asynccontextmanager
async def door(path: Path) -> AsyncIterator[Door]:
    async with Journal.open(path) as journal:
        opened = Door(journal)
        await opened.marks.restore()
        yield opened


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(seed=st.integers(0, 2**32 - 1))
async def test_gaps_over_any_order_copies_and_restarts(tmp_path: Path, seed: int) -> None:
    path, chance = tmp_path / f"{seed}.db", random.Random(seed)
    numbers = [n for n in range(1, 40) if chance.random() < 0.8]
    chance.shuffle(numbers)
    numbers += chance.choices(numbers or [1], k=10)
    heard: set[int] = set()
    for start in range(0, len(numbers), 12):
        async with door(path) as opened:
            opened.now = start * 1000.0
            for number in numbers[start : start + 12]:
                await opened.hear(number)
                heard.add(number)
                if chance.random() < 0.2:
                    await opened.marks.look()
            await opened.marks.look()
            opened.now += PATIENCE
            await opened.marks.look()
            assert await opened.missing() - heard == set(range(1, max(heard) + 1)) - heard
    assert all(finding.state != "broken" for finding in doctor.examine(path))


async def test_what_is_quarantined_came(tmp_path: Path) -> None:
    async with door(tmp_path / "j.db") as opened:
        await opened.hear(1)
        with pytest.raises(BadInput):
            await opened.hear(2, b"{")
        await opened.hear(3)
        opened.now = PATIENCE
        await opened.marks.look()
        opened.now *= 2
        await opened.marks.look()
        assert await opened.missing() == set()


async def test_the_doctor_sees_a_hole_that_nobody_noticed(tmp_path: Path) -> None:
    async with door(tmp_path / "j.db") as opened:
        for number, at in ((1, 0.0), (3, 1.0), (4, 500.0)):
            opened.now = at
            await opened.hear(number)
    findings = {finding.invariant: finding for finding in doctor.examine(tmp_path / "j.db")}
    assert findings["I3"].state == "broken"
    assert "lacks 2 to 2" in findings["I3"].detail


async def test_a_look_at_nothing_new_writes_nothing(tmp_path: Path) -> None:
    async with door(tmp_path / "j.db") as opened:
        await opened.hear(1)
        await opened.marks.look()
        before = opened.journal._writer.commits
        await opened.marks.look()
        assert opened.journal._writer.commits == before
    async with door(tmp_path / "j.db") as opened:
        await opened.marks.look()
        assert opened.journal._writer.commits == 0


async def test_behind_a_gap_that_was_told_the_next_one_is_noticed_and_little_is_kept(tmp_path: Path) -> None:
    async with door(tmp_path / "j.db") as opened:
        for number in (1, 3, 4):
            await opened.hear(number)
        await opened.wait()
        assert await opened.journal.heard() == [("p", "b", 4, None)]
        for number in (*range(5, 10_101), 10_102):
            opened.marks.hear(Numbered("p", "b", number))
        await opened.wait()
        assert await opened.missing() == {2, 10_101}
    async with door(tmp_path / "j.db") as opened:
        await opened.hear(10_104)
        await opened.wait()
        assert await opened.missing() == {2, 10_101, 10_103}
        assert opened.marks.open == 3


async def test_what_comes_late_closes_the_gap_once_over_restarts(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with door(path) as opened:
        for number in (1, 5):
            await opened.hear(number)
        await opened.wait()
        await opened.hear(3)
    async with door(path) as opened:
        for number in (3, 4, 2):
            assert await opened.missing() == {2, 3, 4}
            await opened.hear(number)
            await opened.marks.look()
        assert [gap.filled is not None for gap in await opened.journal.gaps()] == [True]
        await opened.hear(3)
        before = opened.journal._writer.commits
        await opened.marks.look()
        assert opened.journal._writer.commits == before
        assert await opened.journal.heard() == [("p", "b", 5, None)]
        assert len(await opened.journal.unperceived()) == 5
    assert all(finding.state != "broken" for finding in doctor.examine(path))


@pytest.mark.parametrize("first", [True, False])
async def test_what_comes_while_its_gap_is_written_closes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    async with door(tmp_path / "j.db") as opened:
        settle = opened.journal.settle

        async def meanwhile(counters: Iterable[Settled]) -> None:
            monkeypatch.setattr(opened.journal, "settle", settle)
            if first:
                await opened.hear(3)
            await settle(counters)
            if not first:
                await opened.hear(3)

        for number in (1, 4):
            await opened.hear(number)
        await opened.marks.look()
        opened.now = PATIENCE
        monkeypatch.setattr(opened.journal, "settle", meanwhile)
        await opened.marks.look()
    async with door(tmp_path / "j.db") as opened:
        await opened.hear(2)
        await opened.marks.look()
        assert await opened.missing() == set()


async def test_many_holes_at_once_are_one_gap_that_every_number_of_it_fills(tmp_path: Path) -> None:
    path, last = tmp_path / "j.db", 4 * ROWS
    async with door(path) as opened:
        for number in range(2, last + 1, 2):
            await opened.hear(number)
        await opened.wait()
        assert [(gap.first, gap.last) for gap in await opened.journal.gaps()] == [(1, last - 1)]
        assert opened.marks.open == last // 2
    async with door(path) as opened:
        assert opened.marks.open == last // 2
        for number in range(1, last, 2):
            await opened.hear(number)
        await opened.marks.look()
        assert await opened.missing() == set()
        assert await opened.journal.heard() == [("p", "b", last, None)]


def test_more_holes_than_may_wait_do_not() -> None:
    counter = Counter.at()
    for number in range(2, 2 * HOLES + 4, 2):
        counter.hear(number)
    assert counter.due(0.0) == [(1, 2 * HOLES + 1)]
