"""A few power cuts while a version is published, and the proof that they find what a registry does wrong."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from runtime.disk import sync
from tests.chaos.folder_cuts import Plate, cuts, watched
from tests.chaos.stores import BUGS, hunt


def test_what_was_published_survives_a_power_cut() -> None:
    done = list(cuts(150, seed=1))
    assert [wrong for _, wrong in done if wrong] == []
    assert sum(bool(cut.told) for cut, _ in done) > 20  # that something was promised at all


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    assert hunt(bug)


def test_a_name_is_safe_once_its_folder_and_bytes_once_the_file_was_synced(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    plate, rng = Plate(tmp_path), random.Random(0)
    with watched(plate, tmp_path):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").write_bytes(b"words")
        os.replace(tmp_path / "old", tmp_path / "older")
        assert plate.after_a_cut(rng, "nothing") == {"old": b"old"}
        assert plate.after_a_cut(rng, "everything") == {"new": None, "new/file": b"words", "older": b"old"}
        sync(tmp_path)
        assert plate.after_a_cut(rng, "nothing") == {"new": None, "older": b"old"}
        sync(tmp_path / "new")
        assert plate.after_a_cut(rng, "nothing")["new/file"] == b""
        sync(tmp_path / "new" / "file")
        (tmp_path / "older").unlink()
        assert plate.after_a_cut(rng, "nothing") == {"new": None, "new/file": b"words", "older": b"old"}
        assert plate.after_a_cut(rng, "everything") == {"new": None, "new/file": b"words"}
