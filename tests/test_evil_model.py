"""Whatever stands in the model's place: nothing outside the envelope reaches a device, and what is inside still does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from runtime.interlocks import Interlocks
from runtime.pace import Pace
from tests import evil


@pytest.mark.parametrize("seed", [0, 1])
async def test_an_evil_model_moves_nothing_outside_the_envelope(tmp_path: Path, seed: int) -> None:
    effects = await evil.run(tmp_path, decisions=3000, seed=seed)
    assert evil.outside(effects) == []
    assert set(Counter(effect.actuator for effect in effects)) == {"lamp", "heating", "saw", "vacuum"}


@pytest.mark.parametrize("part", [Pace, Interlocks])
async def test_the_judge_would_notice(tmp_path: Path, part: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "refuse", lambda *_: None)
    assert evil.outside(await evil.run(tmp_path, decisions=3000)) != []
