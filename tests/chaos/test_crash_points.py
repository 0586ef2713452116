"""A few crash points of every kind, and the proof that the harness sees a bug and notices when it killed nobody."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.crash_points import Point, crashes, journal_scene, registry_scene

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def test_what_was_acknowledged_survives_a_kill_at_any_system_call(tmp_path: Path) -> None:
    killed = Counter[str]()
    for point, wrong in crashes(tmp_path, 12, seed=0):
        killed[point.victim] += 1
        assert not wrong, point
    assert killed == {"journal": 8, "registry": 4}


def test_a_journal_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    scene = journal_scene(tmp_path / "boast", "boast")
    writes = scene.trace.calls["pwrite64"]
    found = (scene.kill(Point("journal", "pwrite64", n)) for n in range(writes // 2, writes, max(1, writes // 40)))
    assert any("was acknowledged and is lost" in wrong for wrong in found)


def test_a_registry_that_is_renamed_before_it_is_whole_is_caught(tmp_path: Path) -> None:
    scene = registry_scene(tmp_path / "scene")
    half = next((scene.root / "adapters").glob("*/judged")).parent
    (half / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(Exception, match="changed on disk"):
        scene.judge(scene.root, scene.told())


def test_a_point_that_is_never_reached_is_an_error_of_the_harness(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed nobody"):
        journal_scene(tmp_path / "scene").kill(Point("journal", "fdatasync", 10_000))
