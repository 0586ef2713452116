"""The small tier: the real daemon and a real broker under kills, and a few planted bugs that the same run has to find."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from plugins import broker as brokers
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import plan
from tests.chaos.run import Order, hunt, run

BROKER = "mosquitto" if brokers.installed_mosquitto() else "embedded"


@pytest.mark.timeout(600)
async def test_kills_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    faults = {
        "kill_agent": 4,
        "kill_broker": 4,
        "kill_policy": 1,
        "stop_agent": 1,
        "lose_acks": 1,
        "double_messages": 1,
        "kill_trainer": 1,
        "corrupt_adapter": 1,
    }
    result = await run(Order(4000, faults, seed=1, broker=BROKER), tmp_path)
    assert result.broken == []
    assert len(result.faults) == sum(faults.values())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", ["ack_before_commit", "no_unique_key", "guard_off"])
async def test_a_planted_bug_is_found(mutant: str, tmp_path: Path) -> None:
    """The others: `python -m tests.chaos --mutants`, part of `make chaos`."""
    result = await hunt(mutant, tmp_path, broker=BROKER)
    assert MUTANTS[mutant].finds in {finding.invariant for finding in result.broken}


def test_the_plan_hangs_on_the_seed_alone() -> None:
    counts = {"kill_agent": 5, "kill_broker": 5, "cut_link": 2}
    assert plan(1000, counts, 7) == plan(1000, counts, 7) != plan(1000, counts, 8)
    assert all(0 < step.after < 1000 for step in plan(1000, counts, 7))


async def test_the_proxy_knows_where_a_packet_ends() -> None:
    from tests.chaos.proxy import read_packet

    reader = asyncio.StreamReader()
    packets = [b"\x30\x03abc", b"\x40\x02\x00\x01", b"\x30\xc8\x01" + b"x" * 200, b"\xc0\x00"]
    reader.feed_data(b"".join(packets))
    reader.feed_eof()
    assert [await read_packet(reader) for _ in packets] == packets
