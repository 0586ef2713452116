"""A few mutants of every kind, and the proof that the trial serves what is good and sees what is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.learning import registry
from tests.chaos.adapter_mutants import Trial, mutants, wrong


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return Trial(tmp_path_factory.mktemp("trial"))


def test_no_spoilt_adapter_is_served(trial: Trial, tmp_path: Path) -> None:
    faults = [(name, wrong(why)) for name, why in mutants(trial, tmp_path, 128, seed=1)]
    assert [fault for fault in faults if fault[1]] == []
    assert len({name for name, _ in faults}) == 32


def test_a_gate_without_its_hashes_is_caught(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_seal", lambda manifest: manifest.seal)
    monkeypatch.setattr(registry, "_nothing_else", lambda directory, known: None)
    assert any(wrong(why) == "SERVED" for _, why in mutants(trial, tmp_path, 96, seed=1))
