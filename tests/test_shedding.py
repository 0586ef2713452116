"""What is let go is counted, and the counts are in the journal, few rows for many messages."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runtime.errors import Unavailable
from runtime.journal import Journal
from runtime.metrics import Metrics
from runtime.shedding import Shedding

MINUTE = 60.0


async def test_counts_are_kept_by_class_and_minute_and_added_up(tmp_path: Path) -> None:
    now = [10 * MINUTE]
    async with Journal.open(tmp_path / "journal.db") as journal:
        shedding = Shedding(journal, metrics := Metrics(), clock=lambda: now[0])
        for _ in range(3):
            shedding.count("home/+/power")
        await shedding.close()
        assert await journal.let_go() == {"home/+/power": 3}
        now[0] += MINUTE
        shedding.count("home/+/power")
        shedding.count("qos 0")
        await shedding.close()
        assert await journal.let_go() == {"home/+/power": 4, "qos 0": 1}
        assert await journal.let_go(since=11 * MINUTE) == {"home/+/power": 1, "qos 0": 1}
    assert b'corrigible_shed_total{of="home/+/power"} 4.0' in metrics.text()


async def test_what_the_journal_could_not_have_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Journal.open(tmp_path / "journal.db") as journal:
        shedding = Shedding(journal, Metrics())

        async def full(counts: object) -> None:
            raise Unavailable("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(journal, "shed", full)
            shedding.count("qos 0")
            await shedding.close()
        shedding.count("qos 0")
        await shedding.close()
        assert await journal.let_go() == {"qos 0": 2}


async def test_a_crowd_makes_few_rows(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "journal.db") as journal:
        shedding = Shedding(journal, Metrics(), clock=lambda: 0.0)
        for number in range(10_000):
            shedding.count("qos 0")
            if not number % 1000:
                await asyncio.sleep(0)
        await shedding.close()
        assert await journal.let_go() == {"qos 0": 10_000}
