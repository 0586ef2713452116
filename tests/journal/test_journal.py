"""The journal: what was acknowledged is there after a reopen or a kill, once; what is derived from it is right."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime.errors import Corrupt, NotFound, Unavailable
from runtime.journal import Journal, lock
from runtime.messages import (
    Action,
    Command,
    Cycle,
    Decision,
    Feedback,
    FeedbackKind,
    Message,
    Observation,
    Outcome,
    Percept,
    Release,
)
from runtime.table import CorrectionTable

YES, NO = Action(tool="yes"), Action(tool="no")


def observation(number: int) -> Observation:
    return Observation(id=f"ob-{number}", topic=f"home/room{number % 3}", payload=b'{"v":1}', at=float(number))


def percept(number: int, text: str = "") -> Percept:
    return Percept(id=f"pc-{number}", scope="room", text=text or f"situation {number}", at=float(number))


def decision(number: int, action: Action = YES) -> Decision:
    return Decision(
        id=f"dc-{number}", percept_id=f"pc-{number}", scope="room", actions=(action,), by="model", adapter="base",
        p_model=0.5, p_behaviour=1.0, at=float(number),
    )  # fmt: skip


def feedback(
    number: int, on: int, kind: FeedbackKind, action: Action | None = None, rating: float | None = None
) -> Feedback:
    return Feedback(
        id=f"fb-{number}", decision_id=f"dc-{on}", kind=kind, source="test", at=100.0 + number, action=action, rating=rating
    )  # fmt: skip


async def test_what_was_put_is_there_after_a_reopen(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with Journal.open(path) as journal:
        assert await journal.put(observation(1), percept(1), decision(1)) == 3
    async with Journal.open(path) as journal:
        assert await journal.percept("pc-1") == percept(1)
        assert await journal.decision("dc-1") == decision(1)
        assert await journal.unperceived() == [observation(1)]


async def test_the_same_message_twice_is_one_row(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        assert await journal.put(observation(1)) == 1
        assert await journal.put(observation(1)) == 0
        assert (await journal.counts())["observation"] == 1


async def test_a_put_is_all_or_nothing_and_harms_no_other(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        orphan = decision(7)  # its percept does not exist: refused by the foreign key
        results = await asyncio.gather(
            journal.put(percept(1)), journal.put(percept(2), orphan), journal.put(percept(3)), return_exceptions=True
        )
        assert results[0] == 1
        assert isinstance(results[1], Unavailable)
        assert results[2] == 1
        assert await journal.percept("pc-2") is None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(groups=st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=8))
async def test_random_puts_and_reopens_lose_nothing(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[int]]
) -> None:
    path = tmp_path_factory.mktemp("journal") / "j.db"
    wanted: set[str] = set()
    for group in groups:
        async with Journal.open(path) as journal:
            await asyncio.gather(*(journal.put(observation(number)) for number in group))
            wanted |= {f"ob-{number}" for number in group}
            assert {o.id for o in await journal.unperceived()} == wanted


async def test_unfinished_work_is_found_at_every_stage(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.put(observation(1))
        await journal.perceived(["ob-1"], percept(1))
        assert await journal.unperceived() == []
        assert [p.id for p in await journal.undecided()] == ["pc-1"]
        await journal.put(decision(1))
        assert await journal.undecided() == []
        assert [d.id for d in await journal.unacted()] == ["dc-1"]
        command = Command(id="cm-1", decision_id="dc-1", actuator="lamp", action=YES, expires_at=9.0, at=2.0)
        await journal.put(command)
        assert await journal.unacted() == []
        assert await journal.unsettled() == [(command, "")]
        await journal.put(Outcome(id="oc-1", decision_id="dc-1", command_id="cm-1", status="held", at=3.0))
        assert await journal.unsettled() == [(command, "held")]
        await journal.put(Outcome(id="oc-2", decision_id="dc-1", command_id="cm-1", status="applied", at=4.0))
        assert await journal.unsettled() == []


async def test_feedback_on_an_unknown_decision_is_refused_and_kept(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        with pytest.raises(NotFound, match="dc-9"):
            await journal.put_feedback(feedback(1, 9, "correction", NO))
        (kept,) = await journal.quarantined()
        assert b"fb-1" in kept.payload


KINDS: list[FeedbackKind] = ["correction", "acceptance", "rating", "override"]
Given = list[tuple[int, FeedbackKind, Action, float]]


@settings(max_examples=40, deadline=None)
@given(
    given=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(KINDS),
            st.sampled_from([YES, NO]),
            st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
        ),
        max_size=10,
    )
)
async def test_examples_are_the_newest_word_on_each_decision(
    tmp_path_factory: pytest.TempPathFactory, given: Given
) -> None:
    newest: dict[int, Feedback] = {}
    corrected: set[int] = set()
    async with Journal.open(tmp_path_factory.mktemp("journal") / "j.db") as journal:
        for number in range(4):
            await journal.put(percept(number), decision(number))
        for number, (on, kind, action, rating) in enumerate(given):
            said = feedback(
                number,
                on,
                kind,
                action if kind in ("correction", "override") else None,
                rating if kind == "rating" else None,
            )
            await journal.put_feedback(said)
            corrected |= {on} if kind in ("correction", "override") else set()
            if kind != "rating" or on not in corrected:  # a rating is no word where the right action was said
                newest[on] = said
        found = {example.id: example for example in await journal.examples(100)}
    expected = {f.id: f for f in newest.values() if f.kind != "rating" or (f.rating or 0.0) > 0}
    assert set(found) == set(expected)
    for id, example in found.items():
        assert example.action == (expected[id].action or YES)
        assert example.correction == (expected[id].kind in ("correction", "override"))


async def test_the_newest_correction_of_a_situation_stands(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        for number in (1, 2, 3):
            await journal.put(percept(number, "the same"), decision(number))
        await journal.put_feedback(feedback(1, 1, "correction", NO))
        await journal.put_feedback(feedback(2, 2, "override", YES))
        assert [(e.id, e.action) for e in await journal.corrections()] == [("fb-2", YES)]
        await journal.put_feedback(feedback(3, 3, "correction", NO))
        assert [(e.id, e.action) for e in await journal.corrections()] == [("fb-3", NO)]


@settings(max_examples=40, deadline=None)
@given(
    given=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([*KINDS, "preference"]),
            st.sampled_from([YES, NO]),
            st.sampled_from([-1.0, 1.0]),
        ),
        max_size=12,
    )
)
async def test_the_table_is_the_same_after_a_restart(tmp_path_factory: pytest.TempPathFactory, given: Given) -> None:
    live, restored = CorrectionTable(), CorrectionTable()
    async with Journal.open(tmp_path_factory.mktemp("journal") / "j.db") as journal:
        for number in range(4):
            await journal.put(percept(number, f"one of two: {number % 2}"), decision(number))
        for number, (on, kind, action, rating) in enumerate(given):
            right = action if kind in ("correction", "override", "preference") else None
            said = feedback(0, on, kind, right, rating if kind == "rating" else None)
            said = replace(said, id=f"fb-{number}")  # all at the same instant: the order of arrival counts
            await journal.put_feedback(said)
            live.learn(percept(on, f"one of two: {on % 2}"), decision(on), said)
        restored.restore(await journal.corrections())
    for number in range(2):
        situation = percept(number, f"one of two: {number}")
        assert live.lookup(situation) == restored.lookup(situation)


async def test_rehearsals_teach_nothing(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.put(replace(percept(1), synthetic=True), decision(1))
        await journal.put_feedback(feedback(1, 1, "correction", NO))
        assert await journal.examples(10) == []
        assert await journal.decisions() == []


async def test_a_cycle_is_one_row_that_changes(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        cycle = Cycle(id="cy-1", state="running", started_at=1.0)
        await journal.put(cycle)
        await journal.put(replace(cycle, state="released"))
        assert [c.state for c in await journal.cycles()] == ["released"]


async def test_the_newest_release_serves(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        assert await journal.serving() is None
        for number, adapter in enumerate(("a", "b")):
            await journal.put(Release(id=f"re-{number}", adapter=adapter, previous="base", why="gate", at=1.0))
        release = await journal.serving()
        assert release is not None
        assert release.adapter == "b"


async def test_people_can_read_the_views(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.put(observation(1), percept(1, "dark, cold"), decision(1))
        await journal.put_feedback(feedback(1, 1, "correction", NO))
    with sqlite3.connect(tmp_path / "j.db") as shell:
        views = [row[0] for row in shell.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
        for view in views:
            shell.execute(f"SELECT * FROM {view}").fetchall()
        assert "dark, cold" in str(shell.execute("SELECT * FROM v_decisions").fetchall())
    shell.close()


async def test_a_file_that_is_no_journal_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(Corrupt, match="cannot be opened as a journal"):
        async with Journal.open(path):
            pass


async def test_a_journal_from_the_future_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "j.db") as shell:
        shell.execute("PRAGMA user_version = 99")
    shell.close()
    with pytest.raises(Corrupt, match="newer Corrigible"):
        async with Journal.open(tmp_path / "j.db"):
            pass


def test_one_holder_of_the_lock(tmp_path: Path) -> None:
    with lock.hold(tmp_path), pytest.raises(Unavailable, match="another Corrigible"), lock.hold(tmp_path):
        pass
    with lock.hold(tmp_path):
        pass


PUTTING = """
import asyncio, sys
from pathlib import Path
from runtime.journal import Journal
from runtime.messages import Observation

async def main():
    async with Journal.open(Path(sys.argv[1])) as journal:
        async def one(worker):
            for number in range(100_000):
                id = f"{worker}-{number}"
                await journal.put(Observation(id=id, topic="t", payload=b"1", at=1.0))
                print(id, flush=True)
        await asyncio.gather(*(one(worker) for worker in range(8)))

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PUTTING, str(path), stdout=asyncio.subprocess.PIPE
    )  # fmt: skip
    assert process.stdout is not None
    acknowledged: list[str] = []
    while len(acknowledged) < 200:
        acknowledged.append((await process.stdout.readline()).decode().strip())
    process.send_signal(signal.SIGKILL)
    rest = (await process.stdout.read()).decode().split("\n")[:-1]  # the last line may be cut
    await process.wait()
    async with Journal.open(path) as journal:
        stored = {o.id for o in await journal.unperceived()}
    assert set(acknowledged) | set(rest) <= stored


def test_every_message_of_the_loop_has_a_table() -> None:
    from runtime.journal.rows import row

    messages: list[Message] = [observation(1), percept(1), decision(1), feedback(1, 1, "correction", NO)]
    assert [row(message)[0].split()[2] for message in messages] == ["observation", "percept", "decision", "feedback"]
