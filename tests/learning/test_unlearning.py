"""What is taken back is in no version and no job any more, whenever it was said; and the cycle that sees to it carries the proof."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from runtime.doubting import Doubts
from runtime.errors import NotFound
from runtime.learning import jobs
from runtime.learning.learner import AGAIN
from runtime.messages import Cycle, Forgotten, Message
from tests.learning.cycles import OFF, parts, released, teach


async def test_what_is_taken_back_is_unlearnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        first = (await p.cycle()).adapter
        assert p.serving.adapter == first
        assert not await p.unlearning.unlearn()
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        assert await p.unlearning.unlearn()
        p.trainer_makes(2.0)
        second = await p.cycle()
        assert p.serving.adapter == second.adapter != first
        assert "fb-1" not in p.store.manifest(second.adapter).lineage
        with pytest.raises(NotFound):
            p.store.manifest(first)
        assert not await p.unlearning.unlearn()


async def test_with_nothing_left_to_learn_from_the_base_model_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, taught=1) as p:
        p.trainer_makes(1.0)
        first = (await p.cycle()).adapter
        await p.journal.put(Forgotten(id="fg-0", feedback_id="fb-0", by="person", at=9.0))
        assert (await p.cycle()).state == "failed"
        assert p.serving.adapter == "base"
        newest = await p.journal.serving()
        assert newest is not None
        assert (newest.adapter, newest.why) == ("base", "forget")
        with pytest.raises(NotFound):
            p.store.manifest(first)


async def test_a_bad_rebuild_does_not_keep_what_must_be_unlearnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        await p.cycle()
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        p.trainer_makes(2.0, recall=0.0)
        assert (await p.cycle()).state == "rejected"
        assert p.serving.adapter == "base"


@dataclass
class Prover:
    """Keeps what it is told."""

    asked: list[str] = field(default_factory=list)

    async def begin(self, adapter: str) -> None:
        self.asked.append(adapter)

    async def proof(self, adapter: str, removed: Collection[str] = ()) -> Message:
        return Forgotten(id=adapter, feedback_id=" ".join(removed), by="prover", at=1.0)


async def test_the_cycle_that_unlearns_carries_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        prover = p.unlearning._prover = Prover()
        p.trainer_makes(1.0)
        first = await p.cycle()
        assert "unlearnt" not in first.report
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        p.trainer_makes(2.0)
        second = await p.cycle()
        assert prover.asked == [first.adapter], "what served is asked before it goes"
        assert (second.report["unlearnt"]["id"], second.report["unlearnt"]["feedback_id"]) == (
            second.adapter, first.adapter
        )  # fmt: skip


async def test_what_is_taken_back_while_it_is_learnt_is_unlearnt_by_the_next_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        judged = p.learner._train

        async def taken_back_meanwhile(cycle: Cycle, *rest: Any) -> jobs.Report:
            await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
            assert await p.unlearning.unlearn(), "a cycle that may learn it runs"
            p.learner._asked.clear()
            return await judged(cycle, *rest)

        monkeypatch.setattr(p.learner, "_train", taken_back_meanwhile)
        first = await p.cycle()
        assert p.learner._asked.is_set()
        monkeypatch.setattr(p.learner, "_train", judged)
        p.trainer_makes(2.0)
        second = await p.cycle()
        assert [m.id for m in p.store.list()] == [second.adapter] != [first.adapter]
        assert "fb-1" not in p.store.manifest(second.adapter).lineage


async def test_a_version_that_does_not_serve_goes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        await p.cycle()
        await p.releases.rollback()
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        assert not await p.unlearning.unlearn()
        assert p.store.list() == []


async def test_the_other_side_of_a_trial_ends_when_what_taught_it_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        await released(p, 1)
        second = await released(p, 2, provisional=True)
        assert p.serving.against is not None
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-0", by="person", at=1.0))
        await p.unlearning.unlearn()
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {second}


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_that_was_forgotten_or_is_doubted_gets_into_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw = random.Random(seed)
    async with parts(tmp_path, monkeypatch) as p:
        doubts = p.learner._doubts = Doubts(p.journal, None, lambda scope, action: action.tool)
        for number in range(10, 40):
            source = draw.choice(["Ana", "Ben", "Cem", "page"])
            said = replace(await teach(p.journal, number), id=f"fb-1{number}", source=source, action=OFF)
            await p.journal.put(*([said] if draw.random() < 0.5 else []))  # some contradict Ana on the same decision
        standing = await p.journal.standing()
        taken = draw.sample(standing, 8)
        await p.journal.put(*(Forgotten(id=f"fg-{id}", feedback_id=id, by="person", at=99.0) for id in taken))
        p.trainer_makes(1.0)
        ended = await p.cycle()
        _, train, held = p.given(ended)
        learnt = {id for e in (*train, *held) for id in (e.id, *e.also)}
        doubted = {one.feedback_id for one in doubts.found.doubted}
        assert doubted
        assert learnt.isdisjoint(taken)
        assert learnt.isdisjoint(doubted)
        assert learnt | doubted | set(taken) >= {e.id for e in await p.journal.examples(99)}


async def test_unlearning_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch, after=0, every=0) as p:
        p.trainer_makes(1.0)
        await p.cycle()
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        p.trainer("exit 3")
        assert (await p.cycle()).state == "failed"
        resting = SimpleNamespace(last_at=0.0)
        assert p.learner._due(resting) == "", "not at once: what failed now may well fail again"
        p.learner._last -= AGAIN
        assert p.learner._due(resting) == "forget"
        p.trainer_makes(2.0)
        assert "fb-1" not in p.store.manifest((await p.cycle()).adapter).lineage
        p.learner._last -= AGAIN
        assert p.learner._due(resting) == ""


async def test_the_same_weights_without_what_was_taken_back_are_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        first = (await p.cycle()).adapter
        await p.journal.put(Forgotten(id="fg-1", feedback_id="fb-1", by="person", at=9.0))
        second = (await p.cycle()).adapter
        assert p.serving.adapter == second != first
        assert "fb-1" not in p.store.manifest(second).lineage
        assert not await p.unlearning.tainted()
        assert (await p.cycle()).adapter == second, "the same weights from the same lessons"
