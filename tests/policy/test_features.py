"""What a situation is like does not depend on who looks, with whom, or under which adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue, Tool
from runtime.learning.jobs import Base
from runtime.learning.memory import unpacked
from runtime.policy.backbone import Backbone
from runtime.policy.encoder import Encoder
from runtime.policy.scoring import Scorer
from tests.policy import tiny

LAMP = Catalogue(
    tools=(Tool(name="lamp", arguments={"level": {"enum": ["off", "on"]}}, required=("level",)), DO_NOTHING)
)
TEXTS = ("It is dark in the hall.", "Somebody is at the door, and it rings and rings.", "hi")
CLOSE = 2e-3  # they travel as float16


def close(a: bytes, b: bytes) -> bool:
    return bool(np.abs(unpacked(a) - unpacked(b)).max() < CLOSE)


def test_decisions_see_them_in_passing(scorer: Scorer) -> None:
    alone = [scorer.look([text], LAMP)[0] for text in TEXTS]
    together = scorer.look(TEXTS, LAMP)
    passing = [row.feature for row in scorer.score_together([(text, LAMP) for text in TEXTS], "base", 0.0, True)]
    asked = [row.feature for row in scorer.score(TEXTS, LAMP, "base", feature=True)]
    for others in (together, passing, asked):
        assert all(close(a, b) for a, b in zip(alone, others, strict=True))
    assert not close(alone[0], alone[1])
    assert np.linalg.norm(unpacked(alone[0])) == pytest.approx(1.0, abs=0.01)


def test_nobody_pays_for_what_nobody_asked(scorer: Scorer) -> None:
    assert scorer.score_together([(TEXTS[0], LAMP)], "base", 0.0)[0].feature == b""


@pytest.mark.parametrize("layers", [None, [3]], ids=["all layers", "the last layer"])
def test_no_adapter_changes_them(model: Base, tmp_path: Path, layers: list[int] | None) -> None:
    backbone = Backbone(model)
    scorer = Scorer(backbone, "Choose.", reply_tokens=12, free_below=0.0, catalogue_tokens=0)
    backbone.load("a", tiny.adapter(model, tmp_path / "a", seed=1, layers=layers))
    before = scorer.look(TEXTS, LAMP)
    after = scorer.score_together([(text, LAMP) for text in TEXTS], "a", 0.0, True)
    assert all(close(a, row.feature) for a, row in zip(before, after, strict=True))
    plain = scorer.score_together([(text, LAMP) for text in TEXTS], "base", 0.0)
    assert plain[0].log_probs != pytest.approx(after[0].log_probs, abs=1e-3)


def test_what_is_written_has_them_too(scorer: Scorer) -> None:
    row = scorer.score(["May I?"], Catalogue(tools=(REPLY,)), "base", feature=True)[0]
    assert close(row.feature, scorer.look(["May I?"], Catalogue(tools=(REPLY,)))[0])


def test_an_encoder_joins_them(model: Base, tmp_path: Path) -> None:
    backbone, encoder = Backbone(model), Encoder(tiny.encoder("bert", tmp_path / "bert"))
    plain, both = (
        Scorer(backbone, "Choose.", reply_tokens=12, free_below=0.0, catalogue_tokens=0, looker=looker)
        for looker in (None, encoder)
    )
    own, joined = (unpacked(scorer.look(TEXTS[:1], LAMP)[0]) for scorer in (plain, both))
    assert len(joined) == len(own) + encoder.model.config.hidden_size
    assert np.linalg.norm(joined) == pytest.approx(1.0, abs=0.01)
    assert float(own @ joined[: len(own)]) == pytest.approx(np.linalg.norm(joined[: len(own)]), abs=0.01)
    passing = both.score_together([(text, LAMP) for text in TEXTS], "base", 0.0, True)
    assert all(close(a, row.feature) for a, row in zip(both.look(TEXTS, LAMP), passing, strict=True))
    assert both.look([], LAMP) == []
