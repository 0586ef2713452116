"""A release is one commit, proven before it serves; whoever is on trial, rolled back or restarted, the journal says who serves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from runtime.errors import NotFound, Unavailable
from runtime.learning import jobs, registry
from runtime.messages import Cycle, Message, Release
from tests.learning.cycles import a_report, confirmed, parts, released, teach


async def test_a_release_is_one_commit_and_flips_the_pointer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        puts: list[tuple[Message, ...]] = []
        put = p.journal.put

        async def recording(*messages: Message, patient: bool = False) -> int:
            puts.append(messages)
            if any(isinstance(message, Release) for message in messages):
                assert p.serving.adapter == "base", "it served before the journal said so"
            return await put(*messages, patient=patient)

        monkeypatch.setattr(p.journal, "put", recording)
        ended = await p.cycle()
        release = await p.journal.serving()
        assert release is not None
        assert (ended.state, ended.adapter, release.adapter, release.previous) == (
            "provisional", p.serving.adapter, p.serving.adapter, "base",
        )  # fmt: skip
        assert release.provisional
        (together,) = [messages for messages in puts if any(isinstance(m, Release) for m in messages)]
        assert [m.state for m in together if isinstance(m, Cycle)] == ["provisional"]
        assert set(p.store.manifest(release.adapter).lineage) == {"fb-0", "fb-1", "fb-2"}


async def test_a_release_that_is_not_committed_does_not_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        put = p.journal.put

        async def full_disk(*messages: Message, patient: bool = False) -> int:
            if any(isinstance(message, Release) for message in messages):
                raise Unavailable("the disk is full")
            return await put(*messages, patient=patient)

        monkeypatch.setattr(p.journal, "put", full_disk)
        ended = await p.cycle()
        assert (ended.state, ended.reason) == ("failed", "the disk is full")
        assert await p.untouched()


@pytest.mark.parametrize("answered", [(-0.5, -1.6), (-0.5,), (float("nan"), -1.5)])
async def test_other_answers_to_the_probes_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: tuple[float, ...]
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        p.trainer_makes(1.0)
        p.worker.fingerprint = answered
        ended = await p.cycle()
        assert (ended.state, "does not answer the probes" in ended.reason) == ("rejected", True)
        assert await p.untouched()


async def test_rollback_and_restart_serve_what_the_journal_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        with pytest.raises(NotFound):
            await p.releases.rollback()
        p.trainer_makes(1.0)
        first = (await p.cycle()).adapter
        p.trainer_makes(2.0)
        second = (await p.cycle()).adapter
        assert p.serving.adapter == second != first
        assert (await p.releases.rollback(by="Ana")).adapter == first == p.serving.adapter
        p.serving.adapter = "base"
        await p.releases.restore()
        assert p.serving.adapter == first
        (p.store.directory(first) / registry.WEIGHTS).write_bytes(b"changed on disk")
        await p.releases.restore()
        assert p.serving.adapter == second, "the newest one that still verifies"


async def test_a_provisional_version_shares_the_decisions_with_the_one_before_it_until_it_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        first = await released(p, 1, provisional=True)
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first}  # the base model was never taught
        await confirmed(p)
        second = await released(p, 2, provisional=True)
        served = [p.serving.choose(f"pc-{n}")[0] for n in range(64)]
        assert set(served) == {first, second}
        assert served == [p.serving.choose(f"pc-{n}")[0] for n in range(64)]
        third = await released(p, 3, provisional=True)  # while the second is on trial
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first, third}
        await p.releases.restore()  # as after a restart
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first, third}
        release = await confirmed(p)
        assert (release.adapter, release.previous, release.provisional, release.reason) == (
            third,
            first,
            False,
            "for the test",
        )
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {third}


async def test_in_shadow_a_version_is_no_measure_and_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parts(tmp_path, monkeypatch, shadow=5) as p:
        first = await released(p, 1)
        second = await released(p, 2, provisional=True)
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first}
        await teach(p.journal, 103)
        p.trainer_makes(3.0)
        third = await p.cycle()  # while the second is watched
        assert p.given(third)[0].champion == str(p.store.directory(first))
        assert p.store.manifest(third.adapter).parent == first
        newest = await p.journal.serving()
        assert newest is not None
        assert (newest.previous, newest.against, newest.shadow) == (first, first, 5)
        await p.releases.restore()  # as after a restart
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first}
        p.releases.take_part(replace(newest, adapter=second))
        assert p.serving.share == 0.0, "that one is not on trial any more"
        p.releases.take_part(newest)
        assert {p.serving.choose(f"pc-{n}")[0] for n in range(64)} == {first, third.adapter}
        assert (await p.releases.rollback(by="Ana")).adapter == first


async def test_only_a_provisional_version_can_be_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with parts(tmp_path, monkeypatch) as p:
        never = Release(id="re-0", adapter="0" * 12, previous="base", why="gate", at=0.0, provisional=True)
        with pytest.raises(NotFound):
            await p.releases.confirm(never, "nothing was released")
        await released(p, 1)
        with pytest.raises(NotFound, match="not the provisional one"):
            await confirmed(p)  # it is full already


async def test_what_was_proven_of_one_version_is_not_said_of_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial may come to its end while another version is being released."""
    async with parts(tmp_path, monkeypatch) as p:
        await released(p, 1)
        await released(p, 2, provisional=True)
        proven = await p.journal.serving()
        assert proven is not None
        await released(p, 3, provisional=True)
        with pytest.raises(NotFound):
            await p.releases.confirm(proven, "proven")


async def test_a_verdict_holds_for_what_it_was_found_against(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody goes back while a candidate is trained: that it beats what served then says nothing of what serves now."""
    async with parts(tmp_path, monkeypatch) as p:
        first = await released(p, 1)
        await released(p, 2)
        better = replace(a_report(), holdout=80, wins=30, candidate=jobs.Scores(accuracy=0.9, recall=1.0))
        trained = p.learner._train

        async def gone_back_meanwhile(cycle: Cycle, *rest: Any) -> jobs.Report:
            await p.releases.rollback(by="Ana")
            return await trained(cycle, *rest)

        monkeypatch.setattr(p.learner, "_train", gone_back_meanwhile)
        p.trainer_makes(3.0, report=msgspec.json.encode(better))
        ended = await p.cycle()
        assert (ended.state, p.serving.against and p.serving.against[0]) == ("provisional", first), ended.reason
        assert "another version serves by now" in ended.reason
        monkeypatch.setattr(p.learner, "_train", trained)
        p.trainer_makes(4.0, report=msgspec.json.encode(better))
        assert (await p.cycle()).state == "released"


async def test_the_memory_is_told_which_versions_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through release, trial, proof, rollback and restart: their manifests say what they were taught and are sure of."""
    told: list[dict[str, tuple[str, ...]]] = []

    async def on_serve(versions: Mapping[str, registry.Manifest]) -> None:
        told.append({version: manifest.learnt for version, manifest in versions.items()})

    async with parts(tmp_path, monkeypatch) as p:
        p.releases.on_serve = on_serve
        p.trainer_makes(1.0, report=msgspec.json.encode(replace(a_report(), learnt=("fb-0",))))
        first = (await p.cycle()).adapter
        assert told == [{first: ("fb-0",)}]
        await confirmed(p)
        second = await released(p, 2, provisional=True)
        assert told[-1] == {first: ("fb-0",), second: ()}  # both decide: it is on trial
        await confirmed(p)
        assert told[-1] == {second: ()}
        await p.releases.rollback()
        assert told[-1] == {first: ("fb-0",)}
        await p.releases.restore()
        assert told[-1] == {first: ("fb-0",)}
        await p.releases.release("base", why="promote")
        assert told[-1] == {}
