"""The short forward computes what transformers computes, for every family: with a prompt, packed rows, a tree, an adapter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from runtime.errors import Unavailable
from runtime.learning.jobs import Base
from runtime.policy import layout as layouts
from runtime.policy.backbone import BASE, Backbone
from runtime.policy.decoder import Decoder
from runtime.policy.layout import NO_PAST
from runtime.policy.whole import Whole
from tests.policy import tiny

PROMPT = [5, 9, 300, 41, 7, 88, 12, 3]
ROWS = [[10, 11, 12, 13, 14, 15, 16, 17, 18], [400, 2, 3], [77]]


def reference(model: Base, adapter: Path | None = None) -> list[Tensor]:
    """Logits of each row alone after the prompt, by transformers and PEFT."""
    plain = AutoModelForCausalLM.from_pretrained(
        model.directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if adapter is not None:
        from peft import PeftModel

        plain = PeftModel.from_pretrained(plain, adapter).eval()
    with torch.no_grad():
        return [plain(torch.tensor([PROMPT + row])).logits[0, len(PROMPT) :] for row in ROWS]


def ours(backbone: Backbone, name: str) -> list[Tensor]:
    weights = backbone.weights(name)
    with torch.no_grad():
        hidden, _ = backbone.after(backbone.prefix(PROMPT, weights), ROWS, weights)
        return [backbone.logits(row, weights) for row in hidden]


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.parametrize("serving", [False, True], ids=["plain", "packed"])
def test_logits_are_those_of_transformers(name: str, serving: bool, tmp_path: Path) -> None:
    model = tiny.family(name, tmp_path / "model")
    targets = ("c_attn", "c_proj") if name == "gpt2" else ("q_proj", "v_proj", "up_proj", "down_proj")
    adapter = tiny.adapter(model, tmp_path / "adapter", 1, targets)
    backbone = Backbone(model, serving=serving)
    assert isinstance(backbone.decoder, Decoder)
    backbone.load("a", adapter)
    for found, wanted in ((ours(backbone, BASE), reference(model)), (ours(backbone, "a"), reference(model, adapter))):
        for row, expected in zip(found, wanted, strict=True):
            assert float((row - expected).norm() / expected.norm()) < 1e-4


def test_a_tree_sees_its_ancestors_only(backbone: Backbone) -> None:
    weights = backbone.weights(BASE)
    with torch.no_grad():
        _, past = backbone.hidden([5, 6], layouts.rows([2]), NO_PAST, weights)
        tree = layouts.seeing(past, [2, 3, 2], [[0, 1, 2], [0, 1, 2, 3], [0, 1, 4]])  # 7 -> 8, and 9 beside 7
        states, _ = backbone.hidden([7, 8, 9], tree, past, weights)
        for ids, state in (([5, 6, 7, 8], states[1]), ([5, 6, 9], states[2])):
            alone, _ = backbone.hidden(ids, layouts.rows([len(ids)]), NO_PAST, weights)
            assert torch.allclose(alone[-1], state, atol=1e-4)


def neox(directory: Path) -> Base:
    """An architecture that the short forward does not know."""
    words = tiny.tokenizer()
    config = AutoConfig.for_model(
        "gpt_neox", vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
    )  # fmt: skip
    return tiny._saved(AutoModelForCausalLM.from_config, config, words, directory)


def test_another_architecture_is_computed_by_transformers(tmp_path: Path) -> None:
    model = neox(tmp_path / "model")
    backbone = Backbone(model)
    assert isinstance(backbone.decoder, Whole)
    adapter = tiny.adapter(model, tmp_path / "adapter", 1, ("query_key_value",))
    backbone.load("a", adapter)
    for found, wanted in ((ours(backbone, BASE), reference(model)), (ours(backbone, "a"), reference(model, adapter))):
        for row, expected in zip(found, wanted, strict=True):
            assert float((row - expected).norm() / expected.norm()) < 1e-4


def test_a_model_whose_head_does_more_is_refused(tmp_path: Path) -> None:
    words = tiny.tokenizer()
    config = AutoConfig.for_model("cohere", vocab_size=len(words), logit_scale=0.25, **tiny.SHAPE)
    model = tiny._saved(AutoModelForCausalLM.from_config, config, words, tmp_path / "model")
    with pytest.raises(Unavailable, match="'cohere' are not supported; use one of the families"):
        Backbone(model)
