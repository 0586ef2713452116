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


async def live(path: Path, corrected: set[int], open_: set[int], count: int, *, apart: bool = False) -> None:
    """`count` situations one after the other; some are corrected, some commands have no end yet. `apart`: every step of one
    is a commit of its own, as it is while the daemon runs."""
    async with Journal.open(path) as journal:
        for number in range(count):
            messages = situation(number, word=number in corrected)
            if number in open_:
                messages = [
                    replace(one, status="uncertain") if isinstance(one, Outcome) else one for one in messages
                ]  # fmt: skip
            for together in [[message] for message in messages] if apart else [messages]:
                await journal.put(*together)
            await journal.perceived([f"o{number}"])
        Anchors.of(path.parent).write(journal.head)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    corrected=st.sets(st.integers(0, 29)), open_=st.sets(st.integers(0, 29), max_size=3), window=st.sampled_from((3, 7, 500)), twice=st.booleans(), apart=st.booleans()
)  # fmt: skip
async def test_what_goes_and_what_stays(
    tmp_path_factory: pytest.TempPathFactory,
    corrected: set[int],
    open_: set[int],
    window: int,
    *,
    twice: bool,
    apart: bool,
) -> None:
    path = tmp_path_factory.mktemp("old") / "journal.db"
    await live(path, corrected, open_, 30, apart=apart)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(retention, "LINKS", 6 * window if apart else window)
        for _ in range(1 + twice):
            async with Journal.open(path) as journal:
                await pruned(journal)
                assert await journal.undecided() == []
                assert await journal.unacted() == []
    stay = {
        str(number) for number in corrected | open_ | {29}
    }  # a table's last row stays: its number is never given again
    for table, sign in (("percept", "p"), ("decision", "d"), ("command", "c"), ("outcome", "u")):
        assert {id.removeprefix(sign) for id in rows(path, f"SELECT id FROM {table}")} == stay
    assert set(rows(path, "SELECT id FROM observation")) == {f"o{number}" for number in stay}, "what woke what stays"
    assert len(rows(path, "SELECT id FROM feedback")) == len(corrected)
    topics = set(rows(path, "SELECT topic FROM observation"))
    assert topics == {one.topic for one in loop(0, 0.0) if hasattr(one, "topic")}, "the newest of every topic stays"
    assert found(path) == []
    assert [one for one in doctor.examine(path) if one.state == "broken"] == []
    async with Journal.open(path) as journal:
        await journal.put(*situation(30, word=True))  # no number is given twice
        await journal.put(observation("home/x", b"1", 1))
    assert found(path) == []
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
    assert rows(path, "SELECT id FROM decision") == ["d2", "d4"]
    assert found(path) == []


async def test_what_was_never_decided_may_still_be(tmp_path: Path) -> None:
    """After a stop that was longer than rows are kept the daemon goes on where it was."""
    path = tmp_path / "journal.db"
    await live(path, set(), set(), 5)
    async with Journal.open(path) as journal:
        await journal.put(*situation(5, word=False)[:2])
        await pruned(journal)
        assert [one.id for one in await journal.undecided()] == ["p5"]


@pytest.mark.parametrize("wrong", [9e9, 1.0])
async def test_a_clock_that_is_wrong_makes_nothing_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """One commit while it was ahead, or as after a start without a battery: what is younger stays, and the chain holds."""
    path = tmp_path / "journal.db"
    for times in ([100.0], [200.0], [wrong], [200.0, 300.0]):
        monkeypatch.setattr("runtime.journal.writer.time.time", lambda times=times: times[0])
        async with Journal.open(path) as journal:
            for _ in times:
                number = len(rows(path, "SELECT id FROM decision"))
                await journal.put(*situation(number, word=False))
                await journal.perceived([f"o{number}"])
    async with Journal.open(path) as journal:
        await pruned(journal, before=150.0)
    assert rows(path, "SELECT id FROM decision") == ["d1", "d2", "d3", "d4"]
    assert found(path) == []
