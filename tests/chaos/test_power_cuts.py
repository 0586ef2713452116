"""A few power cuts, and the proof that the disk catches what loses rows: syncing less, and a disk model without teeth."""

from __future__ import annotations

import random

import pytest

from tests.chaos.disk import Disk, Stored
from tests.chaos.power_cuts import cuts


def test_what_was_acknowledged_survives_a_power_cut() -> None:
    done = list(cuts(60, seed=1))
    assert [wrong for _, wrong in done if wrong] == []
    assert sum(bool(cut.told) for cut, _ in done) > 10  # that something was promised at all


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_less_than_synchronous_full_loses_acknowledged_rows(synchronous: str) -> None:
    assert any("was acknowledged and is lost" in wrong for _, wrong in cuts(400, 0, synchronous))


def test_a_cut_loses_and_tears_only_what_was_not_synced() -> None:
    rng, found = random.Random(0), set()
    for _ in range(200):
        disk = Disk()
        file = disk.files["f"] = Stored()
        file.write(0, b"a" * 2048)
        file.sync()
        disk.sync_names()
        file.write(1000, b"b" * 1048)
        found.add(disk.after_a_cut(rng, "torn")["f"])
    assert all(len(raw) == 2048 and raw[:1000] == b"a" * 1000 for raw in found)
    assert {b"a" * 2048, b"a" * 1000 + b"b" * 1048} <= found
    torn = [raw for raw in found if b"b" in raw and raw.count(b"b") < 1048]
    assert torn
    assert all(len(set(raw[n : n + 512])) == 1 for raw in torn for n in (1024, 1536))  # a sector is whole


def test_a_name_may_be_missing_or_come_back_until_the_folder_is_synced() -> None:
    disk, rng = Disk(), random.Random(0)
    disk.files["f"], disk.ghosts["g"] = Stored(), Stored()
    assert set(disk.after_a_cut(rng, "nothing")) == {"g"}
    assert set(disk.after_a_cut(rng, "everything")) == {"f"}
    disk.sync_names()
    assert set(disk.after_a_cut(rng, "nothing")) == {"f"}
