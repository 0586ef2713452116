"""Which road a catalogue takes, what a gold action is worth, and that every call gets the adapter it asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue, Tool
from runtime.errors import Unavailable
from runtime.learning.jobs import Base
from runtime.messages import Action
from runtime.policy.backbone import Backbone
from runtime.policy.scoring import Scorer
from tests.policy import tiny

FINITE = Catalogue(
    tools=(Tool(name="lamp", arguments={"level": {"enum": ["off", "on"]}}, required=("level",)), DO_NOTHING)
)
REPLIES = (Action(tool="reply", arguments={"text": "Yes, of course."}), Action(tool="reply", arguments={"text": "No."}))
KNOWN = Catalogue(tools=(REPLY,), known=REPLIES)


def scorer_of(backbone: Backbone, free_below: float) -> Scorer:
    return Scorer(backbone, "Answer.", reply_tokens=6, free_below=free_below, catalogue_tokens=0)


def test_known_replies_are_candidates(backbone: Backbone) -> None:
    row = scorer_of(backbone, 0.0).score(["May I?"], KNOWN, "base")[0]
    assert row.chosen in REPLIES
    assert not row.free


def test_an_unlikely_reply_is_written_instead(backbone: Backbone) -> None:
    row = scorer_of(backbone, 1.0).score(["May I?"], KNOWN, "base")[0]
    assert row.free
    assert row.chosen not in REPLIES
    assert row.actions == list(REPLIES)  # what was considered stays on record
    KNOWN.check(row.chosen)


def test_without_known_replies_one_is_written(backbone: Backbone) -> None:
    row = scorer_of(backbone, 0.5).score(["May I?"], Catalogue(tools=(REPLY,)), "base")[0]
    assert row.free
    assert row.chosen.tool == "reply"


def test_a_reply_beside_other_tools_is_picked_or_written(backbone: Backbone) -> None:
    mixed = Catalogue(tools=(DO_NOTHING, REPLY), known=REPLIES)
    picked = scorer_of(backbone, 0.0).score(["May I?"], mixed, "base")[0]
    assert picked.actions == [Action(tool="nothing"), *REPLIES]
    assert picked.chosen in picked.actions
    written = scorer_of(backbone, 1.0).score(["May I?"], mixed, "base")[0]
    assert written.free
    assert written.chosen.tool == "reply"


def test_gold_is_the_candidates_own_log_probability(scorer: Scorer) -> None:
    for action in FINITE.finite():
        row = scorer.score(["It is dark."], FINITE, "base", gold=[action])[0]
        assert row.log_p_gold == row.log_probs[row.actions.index(action)]


def test_gold_outside_the_catalogue_has_no_log_probability(scorer: Scorer) -> None:
    row = scorer.score(["It is dark."], FINITE, "base", gold=[Action(tool="unseen")])[0]
    assert row.log_p_gold is None


def test_every_call_gets_the_adapter_it_names(model: Base, tmp_path: Path) -> None:
    backbone = Backbone(model)
    scorer = Scorer(backbone, "Choose.", reply_tokens=6, free_below=0.0, catalogue_tokens=0)

    def ask(adapter: str) -> list[float]:
        return scorer.score(["It is dark."], FINITE, adapter)[0].log_probs

    before = ask("base")
    for seed in (1, 2):
        backbone.load(f"a{seed}", tiny.adapter(model, tmp_path / str(seed), seed))
    first, second = ask("a1"), ask("a2")
    assert first != pytest.approx(before, abs=1e-3)
    assert first != pytest.approx(second, abs=1e-3)
    for _ in range(2):
        assert ask("a2") == second
        assert ask("base") == before
        assert ask("a1") == first
    assert backbone.fingerprint("a1") != backbone.fingerprint("a2")
    with pytest.raises(Unavailable, match="a3"):
        ask("a3")


def test_the_fingerprint_is_the_adapters_not_the_processs(model: Base, tmp_path: Path) -> None:
    directory = tiny.adapter(model, tmp_path / "x", 3)
    prints = []
    for name in ("one", "two"):
        backbone = Backbone(model)
        backbone.load(name, directory)
        prints.append(backbone.fingerprint(name))
    assert prints[0] == pytest.approx(prints[1], abs=1e-3)


def test_the_catalogue_is_listed_only_if_it_fits(backbone: Backbone) -> None:
    wide = Scorer(backbone, "Choose.", reply_tokens=6, free_below=0.0, catalogue_tokens=64)
    narrow = Scorer(backbone, "Choose.", reply_tokens=6, free_below=0.0, catalogue_tokens=2)
    assert "lamp on" in backbone.tokenizer.decode(wide.prompt(FINITE).prefix)
    assert "lamp on" not in backbone.tokenizer.decode(narrow.prompt(FINITE).prefix)
