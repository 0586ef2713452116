"""Journal, versions and backups in any order of work, kills, damage and restores: what was told is what is there (stateful)."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime.bus import Bus
from runtime.config import GateConfig
from runtime.decision import Serving
from runtime.errors import Corrupt, NotFound
from runtime.journal import Journal, backups, doctor
from runtime.learning import jobs
from runtime.learning.registry import WEIGHTS, Registry
from runtime.learning.releases import Releases
from runtime.learning.trust import BASE
from runtime.messages import Action, Feedback, Observation, Outcome, Percept
from runtime.metrics import Metrics
from tests.learning.test_registry import finished
from tests.stages import decision, percept

ACTION = Action(tool="nothing")
MODEL = jobs.Base(directory="/models/x", revision="rev1", dtype="float32")


class Loader:
    """A worker that answers the probes as the trainer measured it."""

    async def load(self, adapter: str, directory: Path) -> list[float]:
        return [-1.0, -2.0]

    async def unload(self, adapter: str) -> None: ...


@dataclass
class Told:
    """What the journal and the store said they have."""

    observations: dict[str, bytes] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    percepts: list[str] = field(default_factory=list)
    decisions: set[str] = field(default_factory=set)
    causes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # decision -> the messages that it comes from
    ended: set[str] = field(default_factory=set)  # decisions
    spoken: set[str] = field(default_factory=set)  # decisions with a person's word on them
    feedback: set[str] = field(default_factory=set)
    heard: set[tuple[str, int]] = field(default_factory=set)
    releases: list[tuple[str, str]] = field(default_factory=list)  # adapter and what served before, newest last
    spoilt: set[str] = field(default_factory=set)


class Life(RuleBasedStateMachine):
    """One daemon's data directory."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="life-"))
        self.lives, self.number = 0, 0
        self.data = self.folder / "data0"
        self.data.mkdir()
        self.told = Told()
        self.copies: list[tuple[Path, Told]] = []
        self.serving_now = "base"

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(work)

    def next(self) -> int:
        self.number += 1
        return self.number

    @initialize()
    def start(self) -> None:
        """As the daemon starts: the journal is opened, and the newest release that verifies serves."""
        self.do(self._start())
        usable = [(adapter, before) for adapter, before in reversed(self.told.releases)]
        self.serving_now = next((one for one, _ in usable if one == "base" or one not in self.told.spoilt), "base")

    async def _start(self) -> None:
        self.open = AsyncExitStack()
        self.journal = await self.open.enter_async_context(Journal.open(self.data / backups.JOURNAL))
        self.store, self.serving = Registry(self.data / backups.ADAPTERS), Serving("base")
        self.releases = Releases(
            self.journal, Bus(), Loader(), self.store, self.serving, GateConfig(keep=1000), Metrics(), lambda: MODEL
        )
        await self.releases.restore()

    def teardown(self) -> None:
        self.do(self.open.aclose())
        self.loop.close()
        shutil.rmtree(self.folder)

    # --- work ---------------------------------------------------------------------------------------------------

    def observation(self, body: bytes) -> Observation:
        return Observation(id=f"ob-{self.next()}", topic="home/a/b", payload=body, at=float(self.number))

    @rule(bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=5))
    def messages_come(self, bodies: list[bytes]) -> None:
        """All at once: one commit carries them."""
        ones = [self.observation(body) for body in bodies]

        async def put() -> list[int]:
            return await asyncio.gather(*(self.journal.put(one) for one in ones))

        assert self.do(put()) == [1] * len(ones)
        self.told.observations |= {one.id: one.payload for one in ones}
        self.told.waiting += [one.id for one in ones]

    @precondition(lambda self: self.told.observations)
    @rule(data=st.data())
    def one_comes_again(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.told.observations)))
        again = Observation(id=id, topic="home/a/b", payload=b"something else", at=0.0)
        assert self.do(self.journal.put(again)) == 0

    @rule(producer=st.sampled_from("pq"), number=st.integers(1, 6))
    def a_numbered_one_comes(self, producer: str, number: int) -> None:
        """Perhaps again: its id says which it is."""
        one = Observation(id=f"{producer}-{number}", topic="home/a/b", payload=b"3", at=1.0)
        self.do(self.journal.put_numbered(one, producer, "boot", number))
        if one.id not in self.told.observations:
            self.told.observations[one.id] = one.payload
            self.told.waiting.append(one.id)
        self.told.heard.add((producer, number))

    @precondition(lambda self: self.told.waiting)
    @rule(count=st.integers(1, 3))
    def they_are_perceived(self, count: int) -> None:
        ids, self.told.waiting = self.told.waiting[:count], self.told.waiting[count:]
        number = self.next()
        woken: Percept = msgspec.structs.replace(percept(number), causes=tuple(ids))
        self.do(self.journal.perceived(ids, woken))
        self.told.percepts.append(woken.id)
        self.told.causes[f"dc-{number}"] = woken.causes

    @precondition(lambda self: self.told.percepts)
    @rule()
    def it_is_decided(self) -> None:
        number = int(self.told.percepts.pop(0).removeprefix("pc-"))
        made = decision(number, ACTION, float(number))
        self.do(self.journal.put(made))
        self.told.decisions.add(made.id)

    @precondition(lambda self: self.told.decisions - self.told.ended)
    @rule()
    def they_end(self) -> None:
        for on in sorted(self.told.decisions - self.told.ended):
            end = Outcome(id=f"oc-{on}", decision_id=on, command_id=None, status="none", at=1.0)
            self.do(self.journal.put(end))
            self.told.ended.add(on)

    @rule(corrected=st.lists(st.booleans(), min_size=1, max_size=4))
    def whole_rounds_are_made(self, corrected: list[bool]) -> None:
        """What retention looks for would be rare by chance."""
        for spoken in corrected:
            self.messages_come([b"round"])
            self.they_are_perceived(len(self.told.waiting))
            while self.told.percepts:
                self.it_is_decided()
            self.they_end()
            if spoken:
                self.correct(f"dc-{self.number}")

    @precondition(lambda self: self.told.decisions)
    @rule(data=st.data(), times=st.integers(1, 2))
    def somebody_corrects(self, data: st.DataObject, times: int) -> None:
        self.correct(data.draw(st.sampled_from(sorted(self.told.decisions))), times)

    def correct(self, on: str, times: int = 1) -> None:
        word = Feedback(
            id=f"fb-{self.next()}", decision_id=on, kind="correction", source="ana", at=1.0, action=ACTION
        )  # fmt: skip
        assert [self.do(self.journal.put_feedback(word)) for _ in range(times)] == [1, 0][:times]
        self.told.feedback.add(word.id)
        self.told.spoken.add(on)

    @rule()
    def what_is_old_goes(self) -> None:
        """Everything is; what a person spoke of stays with what it comes from, and so does what has no end."""
        kept = self.told.spoken | (self.told.decisions - self.told.ended)
        needed = {id for one in self.told.spoken for id in self.told.causes[one]} | set(self.told.waiting)

        async def prune() -> None:
            while await self.journal.prune(time.time() + 1) is not None:
                pass

        self.do(prune())
        with closing(sqlite3.connect(f"file:{self.data / backups.JOURNAL}?mode=ro", uri=True)) as base:
            decisions = {id for (id,) in base.execute("SELECT id FROM decision")}
            observations = {id for (id,) in base.execute("SELECT id FROM observation")}
            percepts = {id for (id,) in base.execute("SELECT id FROM percept")}
        assert kept <= decisions <= self.told.decisions
        assert needed <= observations
        assert set(self.told.percepts) <= percepts
        self.told.decisions = decisions
        self.told.observations = {id: body for id, body in self.told.observations.items() if id in observations}

    # --- versions -----------------------------------------------------------------------------------------------

    @rule()
    def a_version_is_released(self) -> None:
        number = self.next()
        job = finished(self.folder / f"job{number}", float(number))

        async def release() -> str:
            made = await self.releases.publish(job, lineage=sorted(self.told.feedback), verdict="better", trusted=BASE)
            await self.releases.release(made, why="gate")
            return made

        before = self.serving_now
        self.serving_now = self.do(release())
        self.told.releases.append((self.serving_now, before))

    @precondition(lambda self: self.told.releases)
    @rule()
    def it_is_rolled_back(self) -> None:
        _, previous = self.told.releases[-1]
        if previous in self.told.spoilt:
            try:
                self.do(self.releases.rollback())
            except Corrupt:
                return
            raise AssertionError("a spoilt version serves")
        self.do(self.releases.rollback())
        self.told.releases.append((previous, self.serving_now))
        self.serving_now = previous

    @precondition(lambda self: any(one != "base" for one, _ in self.told.releases))
    @rule(data=st.data())
    def a_file_is_damaged(self, data: st.DataObject) -> None:
        adapter = data.draw(st.sampled_from(sorted({one for one, _ in self.told.releases} - {"base"})))
        weights = self.store.directory(adapter) / WEIGHTS
        raw = bytearray(weights.read_bytes())
        raw[-1] ^= 1 + len(self.told.spoilt)
        weights.unlink()  # a backup may share the file
        weights.write_bytes(raw)
        self.told.spoilt.add(adapter)

    # --- ends and beginnings ------------------------------------------------------------------------------------

    @rule()
    def it_is_stopped(self) -> None:
        self.do(self.open.aclose())
        self.start()

    @rule()
    def it_is_killed(self) -> None:
        """What is on the disk at this moment is what the next one finds."""
        self.lives += 1
        found = self.folder / f"data{self.lives}"
        shutil.copytree(self.data, found)
        self.do(self.open.aclose())
        shutil.rmtree(self.data)
        self.data = found
        self.start()

    @rule()
    def it_is_backed_up(self) -> None:
        place = self.folder / f"backup{self.next()}"
        backups.make(self.data, place)
        self.copies.append((place, deepcopy(self.told)))

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def a_backup_is_put_back(self, data: st.DataObject) -> None:
        place, told = data.draw(st.sampled_from(self.copies))
        self.do(self.open.aclose())
        backups.restore(self.data, place)
        self.told = deepcopy(told)
        self.start()

    # --- what always holds --------------------------------------------------------------------------------------

    @invariant()
    def what_was_told_is_there(self) -> None:
        if not hasattr(self, "journal"):
            return
        journal = self.data / backups.JOURNAL
        assert doctor.missing(journal, sorted(self.told.observations)) == []
        with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as base:
            assert dict(base.execute("SELECT id, payload FROM observation")) == self.told.observations
            assert {id for (id,) in base.execute("SELECT id FROM decision")} == self.told.decisions
            assert {id for (id,) in base.execute("SELECT id FROM feedback")} == self.told.feedback
            heard = {tuple(row) for row in base.execute("SELECT producer, number FROM heard")}
            assert heard == self.told.heard
        assert [one.id for one in self.do(self.journal.unperceived())] == self.told.waiting

    @invariant()
    def nothing_is_broken(self) -> None:
        if hasattr(self, "journal"):
            broken = [one for one in doctor.examine(self.data / backups.JOURNAL) if one.state == "broken"]
            assert broken == []

    @invariant()
    def who_serves_was_released_and_is_whole(self) -> None:
        if not hasattr(self, "journal"):
            return
        assert self.serving.adapter == self.serving_now
        released: Any = self.do(self.journal.serving())
        assert (released.adapter if released else "base") == (
            self.told.releases[-1][0] if self.told.releases else "base"
        )
        for manifest in self.store.list():
            try:
                self.store.verify(manifest.id, MODEL.revision)
            except (Corrupt, NotFound):
                assert manifest.id in self.told.spoilt
            else:
                assert manifest.id not in self.told.spoilt


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
