"""Encoders choose the nearest action: what they say is the definition, and the worker serves them like any model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue, Tool
from runtime.config import PolicyConfig
from runtime.errors import BadConfig, Unavailable
from runtime.learning.jobs import Base
from runtime.messages import Action
from runtime.policy import adapter as adapters
from runtime.policy.backbone import BASE, Backbone
from runtime.policy.client import Policy
from runtime.policy.encoder import Encoder, backbone_of, is_encoder
from runtime.policy.matching import Matcher, scorer_of
from runtime.policy.steps import finish
from tests.policy import tiny

LAMP = Tool(name="lamp", arguments={"level": {"enum": ["off", "dim", "bright"]}}, required=("level",))
HALL = Catalogue(tools=(LAMP, DO_NOTHING))
MANY = Catalogue(tools=(Tool(name="channel", arguments={"number": {"enum": [*range(11)]}}, required=("number",)),))
OPEN = {
    "replies": Catalogue(tools=(DO_NOTHING, REPLY), known=(Action(tool="reply", arguments={"text": "Hello."}),)),
    "free arguments": Catalogue(tools=(DO_NOTHING, Tool(name="note", arguments={"text": {"type": "string"}}))),
    "nothing": Catalogue(tools=()),
}
TEXTS = ["It is dark.", "We watch a film in the living room tonight.", "", "天气"]
TARGETS = {
    "bert": ("query", "value"), "roberta": ("query", "dense"), "mpnet": ("q", "o"), "distilbert": ("q_lin", "lin2"),
}  # fmt: skip
PATIENCE = 120.0  # seconds after which a hanging test fails


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    return {name: tiny.encoder(name, tmp_path_factory.mktemp(name)) for name in tiny.ENCODERS}


@pytest.fixture
def matcher(bases: dict[str, Base]) -> Matcher:
    return Matcher(Encoder(bases["bert"]))


def lora(base: Base, directory: Path, name: str = "bert", seed: int = 1) -> Path:
    return tiny.adapter(base, directory, seed, TARGETS[name], "FEATURE_EXTRACTION")


def definition(base: Base, adapter: Path | None, text: str, catalogue: Catalogue) -> Tensor:
    """Every text alone through transformers and PEFT; the mean of its tokens; cosines over 0.05."""
    from peft import PeftModel

    model: Any = AutoModel.from_pretrained(base.directory, dtype=torch.float32, attn_implementation="eager").eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter).eval()
    words = AutoTokenizer.from_pretrained(base.directory)

    def vector(text: str) -> Tensor:
        ids = words(text)["input_ids"] or [model.config.pad_token_id]
        mean: Tensor = model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state
        return mean[0].mean(0)

    with torch.no_grad():
        actions = torch.stack([vector(catalogue.render(action)) for action in catalogue.finite()])
        return (F.cosine_similarity(vector(text)[None], actions) / 0.05).log_softmax(-1)


@pytest.mark.parametrize("name", tiny.ENCODERS)
def test_probabilities_are_those_of_the_definition(name: str, bases: dict[str, Base], tmp_path: Path) -> None:
    encoder = backbone_of(bases[name], serving=True)
    scorer = scorer_of(encoder, "Choose.", reply_tokens=8, free_below=0.0, catalogue_tokens=0)
    directory = lora(bases[name], tmp_path / "a", name)
    encoder.load("a", directory)
    found: dict[str, list[list[float]]] = {}
    for adapter, where in ((BASE, None), ("a", directory)):
        rows = scorer.score(TEXTS, HALL, adapter)
        for text, row in zip(TEXTS, rows, strict=True):
            assert row.actions == list(HALL.finite())
            assert torch.tensor(row.log_probs).exp().sum() == pytest.approx(1.0)
            assert row.log_probs == pytest.approx(definition(bases[name], where, text, HALL).tolist(), abs=1e-3)
            assert row.log_p == max(row.log_probs)
            assert row.chosen == row.actions[row.log_probs.index(row.log_p)]
        found[adapter] = [row.log_probs for row in rows]
    assert found[BASE][0] != pytest.approx(found["a"][0], abs=1e-2)
    assert found[BASE][0] != pytest.approx(found[BASE][1], abs=1e-2)
    assert encoder.fingerprint("a") != pytest.approx(encoder.fingerprint(BASE), abs=0.05)


def test_decisions_together_are_those_alone(matcher: Matcher) -> None:
    asked = [(text, catalogue) for text in TEXTS for catalogue in (HALL, MANY)]
    for (text, catalogue), row in zip(asked, matcher.score_together(asked, BASE, 0.0), strict=True):
        assert row.log_probs == pytest.approx(matcher.score([text], catalogue, BASE)[0].log_probs, abs=1e-4)


def test_the_gold_answer_is_told_where_there_is_one(matcher: Matcher) -> None:
    gold = [Action(tool="nothing"), Action(tool="gone"), Action(tool="lamp", arguments={"level": "blue"})]
    rows = matcher.score(["dark"] * 3, HALL, BASE, gold=gold)
    assert [row.log_p_gold for row in rows] == [rows[0].log_probs[-1], None, None]
    assert matcher.score([], HALL, BASE) == []


@pytest.mark.parametrize("kind", OPEN)
def test_an_open_catalogue_is_one_sentence(kind: str, matcher: Matcher) -> None:
    with pytest.raises(BadConfig, match=r"'bert' choose among finitely many actions.*use a language model"):
        matcher.score(["Who are you?"], OPEN[kind], BASE)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, matcher: Matcher) -> list[int]:
    """How many texts each call of the encoder got."""
    counts: list[int] = []
    vectors = matcher.backbone.decoder.vectors

    def counted(weights: Any, rows: Sequence[Sequence[int]]) -> Tensor:
        counts.append(len(rows))
        return vectors(weights, rows)

    monkeypatch.setattr(matcher.backbone.decoder, "vectors", counted)
    return counts


def test_actions_are_read_once_for_an_adapter_and_a_catalogue(
    matcher: Matcher, read: list[int], bases: dict[str, Base], tmp_path: Path
) -> None:
    matcher.score(TEXTS, MANY, BASE)
    assert sum(read) == len(TEXTS) + 11
    matcher.score(TEXTS, MANY, BASE)
    assert sum(read) == 2 * len(TEXTS) + 11
    matcher.backbone.load("a", lora(bases["bert"], tmp_path / "a"))
    read.clear()
    steps = matcher.warming("a")
    for _ in range(3):  # four actions a step
        next(steps)
        assert not torch.is_inference_mode_enabled()
        matcher.score(["dark"], MANY, BASE)
    finish(steps)
    assert sum(read) == 3 + 11
    matcher.score(["dark"], MANY, "a")
    assert sum(read) == 4 + 11
    matcher.forget("a")
    matcher.score(["dark"], MANY, "a")
    assert sum(read) == 5 + 22


def test_an_adapter_of_another_model_or_kind_is_refused(
    matcher: Matcher, bases: dict[str, Base], tmp_path: Path
) -> None:
    with pytest.raises(Unavailable, match="is for another model"):
        matcher.backbone.load("a", lora(bases["mpnet"], tmp_path / "a", "mpnet"))
    adapters.write_delta(tmp_path / "b", {"embeddings.LayerNorm.bias": torch.ones(32)})
    with pytest.raises(Unavailable, match="'bert' take adapters of kind lora only"):
        matcher.backbone.load("b", tmp_path / "b")


def marked(directory: Path) -> None:
    """A tokenizer that marks the ends of a text, as those of real encoders do."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # [, SEP, ]
    words.post_processor = processors.TemplateProcessing("[CLS] $0 [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(directory)


@pytest.mark.parametrize("name", tiny.ENCODERS)
def test_a_text_is_data_and_keeps_its_marks(name: str, tmp_path: Path) -> None:
    base = tiny.encoder(name, tmp_path / "model")
    marked(tmp_path / "model")
    encoder = Encoder(base)
    assert encoder.encode("a [SEP] a") == [1, 3, 0, 0, 0, 3, 2]
    long = encoder.encode("a " * 5000)
    assert (long[0], long[-1]) == (1, 2)
    positions = encoder.model.config.max_position_embeddings
    assert positions - 4 <= len(long) < positions
    catalogue = Catalogue(tools=(LAMP,))
    assert Matcher(encoder).score(["a " * 5000], catalogue, BASE)[0].chosen in catalogue.finite()


def test_which_models_are_encoders(bases: dict[str, Base], model: Base, tmp_path: Path) -> None:
    assert all(is_encoder(base.directory) for base in bases.values())
    assert not is_encoder(model.directory)
    assert type(backbone_of(model)) is Backbone
    assert not is_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "is_decoder": True}))
    assert not is_encoder(str(tmp_path))


def test_a_broken_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(Unavailable, match="cannot load the model"):
        Encoder(Base(directory=str(tmp_path), revision="x", dtype="float32"))


async def test_the_worker_serves_it(bases: dict[str, Base], tmp_path: Path) -> None:
    base = bases["roberta"]
    directory = lora(base, tmp_path / "a", "roberta")
    config = PolicyConfig(model=base.directory, dtype="float32")
    async with asyncio.timeout(PATIENCE), Policy(config, tmp_path, "Choose.") as policy:
        await policy.wait_ready()
        assert policy.base() == base
        before = await asyncio.gather(*(policy.score_one(text, c, BASE) for text in TEXTS for c in (HALL, MANY)))
        for (text, catalogue), row in zip([(t, c) for t in TEXTS for c in (HALL, MANY)], before, strict=True):
            assert row.log_probs == pytest.approx(definition(base, None, text, catalogue).tolist(), abs=1e-3)
        encoder = Encoder(base)
        encoder.load("a", directory)
        assert await policy.load("a", directory) == pytest.approx(encoder.fingerprint("a"), abs=1e-3)
        row = await policy.score_one("It is dark.", HALL, "a")
        assert row.log_probs == pytest.approx(definition(base, directory, "It is dark.", HALL).tolist(), abs=1e-3)
        with pytest.raises(Unavailable, match="use a language model"):
            await policy.score_one("Who are you?", OPEN["replies"], "a")
        await policy.unload("a")
        with pytest.raises(Unavailable, match="'a' is not loaded"):
            await policy.score_one("It is dark.", HALL, "a")
