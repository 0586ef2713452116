"""Feedback that is taken back: the row stays, nothing is learnt from it, and what was said before it stands again."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime import journal as journals
from runtime.errors import NotFound
from runtime.journal import Journal
from runtime.messages import Action, Feedback, Forgotten
from tests.stages import BRIGHT, DIM, decision, percept

OFF = Action(tool="lamp", arguments={"level": "off"})


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "j.db") as opened:
        await opened.put(percept(1), decision(1, BRIGHT, 1.0), said("first", DIM, 2.0), said("second", OFF, 3.0, "Eve"))
        yield opened


def said(id: str, action: Action, at: float, source: str = "Ana") -> Feedback:
    return Feedback(id=id, decision_id="dc-1", kind="correction", source=source, at=at, action=action)


async def forget(journal: Journal, id: str) -> None:
    await journal.put(Forgotten(id=f"fg-{id}", feedback_id=id, by="person", at=9.0))


async def test_the_word_before_it_stands_again(journal: Journal) -> None:
    assert [(e.id, e.action) for e in await journal.examples(9)] == [("second", OFF)]
    await forget(journal, "second")
    assert [(e.id, e.action) for e in await journal.examples(9)] == [("first", DIM)]
    assert [e.id for e in await journal.corrections()] == ["first"]
    found = await journal.example_on("dc-1")
    assert found is not None
    assert found.id == "first"
    await forget(journal, "first")
    assert await journal.examples(9) == [] == await journal.corrections()
    assert await journal.forgotten() == {"first", "second"}
    assert len(await journal.feedback_of("dc-1")) == 2, "what was said stays on record"


async def test_it_is_found_by_source_time_and_decision(journal: Journal) -> None:
    assert await journal.standing(source="Eve") == ["second"]
    assert await journal.standing(since=2.5) == ["second"]
    assert await journal.standing(until=2.5) == ["first"]
    assert await journal.standing(decision_id="dc-1") == ["first", "second"]
    assert await journal.standing(decision_id="dc-1", source="Eve", until=1.0) == []
    await forget(journal, "second")
    assert await journal.standing(source="Eve") == []


async def test_everybodys_newest_word_is_told_where_people_disagree(journal: Journal) -> None:
    assert [(e.id, e.source, e.action) for e in await journal.words(9)] == [
        ("first", "Ana", DIM), ("second", "Eve", OFF)
    ]  # fmt: skip
    await journal.put(said("third", BRIGHT, 4.0))
    assert [e.id for e in await journal.words(9)] == ["second", "third"]
    await forget(journal, "third")
    assert [e.id for e in await journal.words(9)] == ["first", "second"]
    assert await journal.sources() == {"Ana": 1, "Eve": 1}


async def test_one_word_is_found_by_its_own_id(journal: Journal) -> None:
    assert await journal.standing(decision_id="second") == ["second"]


async def test_a_word_is_exchanged_whole_or_not_at_all(journal: Journal) -> None:
    old = Forgotten(id="fg-second", feedback_id="second", by="person", at=5.0)
    lost = replace(said("new", DIM, 5.0), decision_id="dc-9")
    with pytest.raises(NotFound):
        await journal.put_feedback(lost, instead=old)
    assert await journal.forgotten() == frozenset()
    before = journal._writer.commits
    await journal.put_feedback(said("new", DIM, 5.0, "Eve"), instead=old)
    assert journal._writer.commits == before + 1
    assert [(e.id, e.action) for e in await journal.examples(9)] == [("new", DIM)]


async def test_a_journal_from_before_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"BEGIN; {journals._sql('schema.sql')} PRAGMA user_version = 1; COMMIT;")
    async with Journal.open(path) as opened:
        await opened.put(percept(1), decision(1, BRIGHT, 1.0), said("first", DIM, 2.0))
        await forget(opened, "first")
        assert await opened.examples(9) == []
