"""The worker as the daemon sees it: calls that are never lost, people's business first, deaths that nobody notices."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.catalogue import DO_NOTHING, Catalogue, Tool
from runtime.config import PolicyConfig
from runtime.errors import Unavailable
from runtime.learning.jobs import Base
from runtime.messages import Action
from runtime.policy.client import Policy
from tests.policy import tiny

FINITE = Catalogue(
    tools=(Tool(name="lamp", arguments={"level": {"enum": ["off", "on"]}}, required=("level",)), DO_NOTHING)
)
PATIENCE = 120.0  # seconds after which a hanging test fails


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def policy(model: Base, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Policy]:
    """One worker for the module: importing torch takes seconds."""
    config = PolicyConfig(model=model.directory, dtype="float32")
    async with Policy(config, tmp_path_factory.mktemp("data"), "Choose what to do.") as policy:
        await policy.wait_ready()
        yield policy


async def test_it_answers_and_says_what_it_is(policy: Policy, model: Base) -> None:
    assert policy.ready
    assert policy.base().revision == model.revision
    row = await policy.score_one("It is dark.", FINITE, "base")
    assert row.actions == list(FINITE.finite())
    assert row.chosen in row.actions


async def test_many_texts_keep_their_order(policy: Policy) -> None:
    texts = [f"{'very ' * (n % 7)}dark, number {n}" for n in range(40)]
    rows = await policy.score(texts, FINITE, "base", floor=0.0, gold=[Action(tool="nothing")] * 40)
    for n in (0, 13, 39):
        alone = await policy.score_one(texts[n], FINITE, "base")
        assert rows[n].log_probs == pytest.approx(alone.log_probs, abs=1e-3)
        assert rows[n].log_p_gold == pytest.approx(alone.log_probs[-1], abs=1e-3)


async def test_a_decision_overtakes_bulk_work(policy: Policy) -> None:
    bulk = asyncio.create_task(policy.score(["word " * 50] * 64, FINITE, "base"))
    await asyncio.sleep(0)  # let the first batch be asked for
    await policy.score_one("It is dark.", FINITE, "base")
    assert not bulk.done()
    assert len(await bulk) == 64


async def test_killed_workers_are_replaced_with_their_adapters(policy: Policy, model: Base, tmp_path: Path) -> None:
    trained = await policy.load("k1", tiny.adapter(model, tmp_path / "k1", 1))
    before = await policy.score_one("It is dark.", FINITE, "k1")
    for _ in range(2):
        old = policy.pid
        assert old is not None
        waiting = [asyncio.create_task(policy.score_one(f"It is dark {n}.", FINITE, "k1")) for n in range(8)]
        await asyncio.sleep(0)
        os.kill(old, signal.SIGKILL)
        assert len(await asyncio.gather(*waiting)) == 8
        after = await policy.score_one("It is dark.", FINITE, "k1")
        assert policy.pid != old
        assert after.log_probs == pytest.approx(before.log_probs, abs=1e-4)
    assert await policy.load("k1", tmp_path / "k1") == pytest.approx(trained, abs=1e-3)
    assert policy.mixed == 0


async def test_an_unknown_adapter_is_a_sentence_and_not_the_end(policy: Policy) -> None:
    with pytest.raises(Unavailable, match="'gone' is not loaded"):
        await policy.score_one("It is dark.", FINITE, "gone")
    with pytest.raises(Unavailable):
        await policy.load("broken", Path("/does/not/exist"))
    assert (await policy.score_one("It is dark.", FINITE, "base")).chosen


async def test_an_unloaded_adapter_is_gone(policy: Policy, model: Base, tmp_path: Path) -> None:
    for seed in (1, 2):
        await policy.load(f"a{seed}", tiny.adapter(model, tmp_path / f"a{seed}", seed))
    await policy.unload("a1")
    with pytest.raises(Unavailable):
        await policy.score_one("It is dark.", FINITE, "a1")
    assert (await policy.score_one("It is dark.", FINITE, "a2")).chosen


async def test_a_missing_model_directory_is_one_sentence(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE), Policy(PolicyConfig(model=str(tmp_path / "none")), tmp_path, "x") as policy:
        with pytest.raises(Unavailable, match=r"has no config\.json; give a directory"):
            await policy.wait_ready()
        with pytest.raises(Unavailable):
            await policy.score_one("x", FINITE, "base")


async def test_closing_ends_the_worker_and_answers_who_waits(model: Base, tmp_path: Path) -> None:
    config = PolicyConfig(model=model.directory, dtype="float32")
    async with asyncio.timeout(PATIENCE):
        async with Policy(config, tmp_path, "x") as policy:
            await policy.wait_ready()
            pid = policy.pid
            waiting = asyncio.create_task(policy.score(["word " * 400] * 64, FINITE, "base"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await waiting
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
