"""Candidates scored as a tree give what scoring them one by one gives."""

from __future__ import annotations

import math

import pytest
import torch

from runtime.catalogue import Catalogue, Tool
from runtime.policy import trie
from runtime.policy.backbone import Backbone
from runtime.policy.scoring import Scorer

CATALOGUE = Catalogue(
    tools=(
        Tool(name="lamp", arguments={"level": {"enum": ["off", "dim", "bright", "bright white"]}}, required=("level",)),
        Tool(name="lamp_hall", arguments={"level": {"enum": ["off", "on"]}}, required=("level",)),
        Tool(name="heating", arguments={"degrees": {"enum": [17, 19, 21]}}, required=("degrees",)),
        Tool(name="nothing"),
    )
)
TEXTS = ["It is dark.", "Somebody came home and it is rather cold in every room.", "Good night", "?"]


def one_by_one(backbone: Backbone, prompt: list[int], candidates: list[list[int]]) -> list[float]:
    """The definition: at every token the softmax over what any candidate allows there."""
    totals = []
    for ids in candidates:
        total = 0.0
        for depth, token in enumerate(ids):
            rivals = sorted(
                {other[depth] for other in candidates if other[:depth] == ids[:depth] and len(other) > depth}
            )
            if len(rivals) > 1:
                with torch.no_grad():
                    logits = backbone.model(torch.tensor([prompt + ids[:depth]])).logits[0, -1].float()
                total += float(logits[rivals].log_softmax(-1)[rivals.index(token)])
        totals.append(total)
    return totals


def test_tree_equals_one_by_one_in_a_padded_batch(backbone: Backbone, scorer: Scorer) -> None:
    prompt = scorer.prompt(CATALOGUE)
    candidates = [prompt.completion(CATALOGUE, action) for action in CATALOGUE.finite()]
    for text, row in zip(TEXTS, scorer.score(TEXTS, CATALOGUE, "base"), strict=True):
        expected = one_by_one(backbone, prompt.prefix + prompt.encode(text), candidates)
        assert row.log_probs == pytest.approx(expected, abs=2e-3)
        assert row.log_p == max(row.log_probs)
        assert row.chosen == row.actions[row.log_probs.index(row.log_p)]


def test_probabilities_sum_to_one_and_every_candidate_is_there(scorer: Scorer) -> None:
    for floor in (0.0, 0.2):
        for row in scorer.score(TEXTS, CATALOGUE, "base", floor):
            assert row.actions == list(CATALOGUE.finite())
            assert sum(map(math.exp, row.log_probs)) == pytest.approx(1.0, abs=1e-4)


def test_a_small_floor_keeps_the_winner_and_its_probability(scorer: Scorer) -> None:
    exact, bulk = (scorer.score(TEXTS, CATALOGUE, "base", floor) for floor in (0.0, 1e-3))
    for a, b in zip(exact, bulk, strict=True):
        assert a.chosen == b.chosen
        assert a.log_p == pytest.approx(b.log_p, abs=1e-3)


def test_a_text_does_not_depend_on_its_neighbours(scorer: Scorer) -> None:
    together = scorer.score(TEXTS, CATALOGUE, "base")
    for text, row in zip(TEXTS, together, strict=True):
        assert scorer.score([text], CATALOGUE, "base")[0].log_probs == pytest.approx(row.log_probs, abs=1e-3)


def test_a_candidate_that_begins_another_is_a_candidate() -> None:
    tree = trie.Trie([[5, 9], [5, 6, 9], [7, 9]])
    assert tree.steps(0) == [(0, 5), (1, 9)]
    assert tree.allowed(0) == [[5, 7], [9, 6]]
    assert tree.steps(2) == [(0, 7)]


def test_the_only_candidate_is_certain(scorer: Scorer) -> None:
    row = scorer.score(["x"], Catalogue(tools=(Tool(name="nothing"),)), "base")[0]
    assert row.log_probs == [0.0]
