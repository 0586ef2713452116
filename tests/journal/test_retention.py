"""What is old and nobody put a word to goes; what was corrected or learnt from stays, with all that explains it; the chain holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.journal import Journal, doctor, retention, verify
from runtime.journal.anchor import Anchors
from runtime.messages import Feedback, Message, Outcome, Percept
from tests.journal.test_chain import found
from tests.journal.test_doctor import loop
from tests.stages import observation

NEVER = 1e12  # later than any commit


def rows(path: Path, sql: str) -> list[str]:
    with closing(sqlite3.connect(path)) as base:
        return [str(row[0]) for row in base.execute(sql)]


async def pruned(journal: Journal, before: float = NEVER) -> int:
    total = 0
    while (some := await journal.prune(before)) is not None:
        total += some
    return total


def situation(number: int, *, word: bool) -> list[Message]:
    """A turn of the loop, with or without what a person said."""
    turn = [one for one in loop(number, 1000.0 + number) if word or not isinstance(one, Feedback)]
    return [replace(one, causes=(f"o{number}",)) if isinstance(one, Percept) else one for one in turn]


async def live(path: Path, corrected: set[int], open_: set[int], count: int) -> None:
    """`count` situations one after the other; some are corrected, some commands have no end yet."""
    async with Journal.open(path) as journal:
        for number in range(count):
            messages = situation(number, word=number in corrected)
            if number in open_:
                messages = [
                    replace(one, status="uncertain") if isinstance(one, Outcome) else one for one in messages
                ]  # fmt: skip
            await journal.put(*messages)
            await journal.perceived([f"o{number}"])
        Anchors.of(path.parent).write(journal.head)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    corrected=st.sets(st.integers(0, 29)), open_=st.sets(st.integers(0, 29), max_size=3), window=st.sampled_from((1, 3, 7, 500)), twice=st.booleans()
)  # fmt: skip
async def test_what_goes_and_what_stays(
    tmp_path_factory: pytest.TempPathFactory, corrected: set[int], open_: set[int], window: int, *, twice: bool
) -> None:
    path = tmp_path_factory.mktemp("old") / "journal.db"
    await live(path, corrected, open_, 30)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retention, "LINKS", window)
        for _ in range(1 + twice):
            async with Journal.open(path) as journal:
                await pruned(journal)
                assert await journal.undecided() == []
                assert await journal.unacted() == []
    stay = {str(number) for number in corrected | open_}
    for table, sign in (("percept", "p"), ("decision", "d"), ("command", "c"), ("outcome", "u")):
        assert {id.removeprefix(sign) for id in rows(path, f"SELECT id FROM {table}")} == stay
    assert {f"o{number}" for number in corrected} <= set(rows(path, "SELECT id FROM observation"))
    assert len(rows(path, "SELECT id FROM feedback")) == len(corrected)
    topics = set(rows(path, "SELECT topic FROM observation"))
    assert topics == {one.topic for one in loop(0, 0.0) if hasattr(one, "topic")}, "the newest of every topic stays"
    assert found(path) == []
    assert [one for one in doctor.examine(path) if one.state == "broken"] == []
    for table in ("decision", "percept", "feedback", "observation", "outcome"):
        for seq in rows(path, f"SELECT seq FROM {table}"):
            assert tampered(path, f"UPDATE {table} SET body = body || ' ' WHERE seq = {seq}")
            assert tampered(path, f"DELETE FROM {table} WHERE seq = {seq}")


def tampered(path: Path, sql: str) -> list[str]:
    """What is found once this was done to a copy."""
    with closing(sqlite3.connect(path)) as base, closing(sqlite3.connect(":memory:")) as copy:
        base.backup(copy)
        copy.execute(sql)
        return [where for where, _ in verify.wrong(copy)]


async def test_what_is_younger_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await live(path, set(), set(), 10)
    async with Journal.open(path) as journal:
        assert await pruned(journal, before=1.0) == 0
    assert len(rows(path, "SELECT id FROM decision")) == 10


async def test_links_that_are_wholly_gone_become_one(tmp_path: Path) -> None:
    """Ten years of telemetry must not leave ten years of links."""
    path = tmp_path / "journal.db"
    async with Journal.open(path) as journal:
        for number in range(50):
            await journal.put(observation("home/a", b"%d" % number, number))
        await journal.perceived(rows(path, "SELECT id FROM observation"))
        assert await pruned(journal) == 49
        for number in range(50, 60):
            await journal.put(observation("home/a", b"%d" % number, number))
        await journal.perceived(rows(path, "SELECT id FROM observation"))
        await pruned(journal)
    assert found(path) == []
    assert len(rows(path, "SELECT seq FROM observation")) < 5
    assert len(rows(path, "SELECT seq FROM chain")) < 10


async def test_a_word_that_comes_meanwhile_keeps_its_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the plan and its transaction somebody corrects: nothing of that batch goes."""
    path = tmp_path / "journal.db"
    await live(path, set(), set(), 5)
    word = next(message for message in loop(2, 1002.0) if isinstance(message, Feedback))
    async with Journal.open(path) as journal:
        put = journal._put

        async def correcting(*given: object, **more: bool) -> int:
            monkeypatch.setattr(journal, "_put", put)
            await journal.put(word)
            return await put(*given, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(journal, "_put", correcting)
        with pytest.raises(Exception, match="FOREIGN KEY"):
            await journal.prune(NEVER)
        await pruned(journal)
    assert rows(path, "SELECT id FROM decision") == ["d2"]
    assert found(path) == []
