"""An encoder (BERT and its relatives) with its adapters, in the place of a language model: texts become vectors.

A text's vector is the mean of its tokens' last states, at length 1. Where a language model has output rows, one a token,
an encoder has the vectors of the actions it was told of: to the trainer an action is one token, and items, losses and
LoRA are those of language models. Covered: LoRA on any layers. Not covered: adapters of other kinds, and kept states
below the trained layers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel

from runtime.errors import BadConfig
from runtime.learning.jobs import Base
from runtime.policy.backbone import BASE, PROBES, Backbone
from runtime.policy.decoder import Watch, Weights
from runtime.policy.layout import Layout, Past
from runtime.policy.prompt import MAX_SITUATION
from runtime.policy.steps import Steps
from runtime.policy.whole import Whole

FAMILIES = ("bert", "camembert", "distilbert", "mpnet", "roberta", "xlm-roberta")
TEMPERATURE = 0.05  # of cosines: a lead of 0.1 is e² to one
TOGETHER = 16  # texts of one forward
PROBE_PLACES = 5  # of a probe's vector, in the fingerprint


def is_encoder(directory: str) -> bool:
    """What config.json says; if it cannot be read, loading the model will say why."""
    try:
        config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return config.get("model_type") in FAMILIES and not config.get("is_decoder")


def backbone_of(base: Base, threads: int = 1, *, serving: bool = False) -> Backbone:
    """The base model, of whichever kind it is."""
    return Encoder(base, threads) if is_encoder(base.directory) else Backbone(base, threads, serving=serving)


class Pooled(Whole):
    """The model of transformers as it is. Each row is a text of its own and has one state: its vector, of length 1."""

    def hidden(
        self, weights: Weights, ids: Tensor, layout: Layout, past: Past, watch: Watch | None = None
    ) -> tuple[Tensor, Past]:
        """The row's vector at each of its tokens [T, d]; there is no past to add to."""
        vectors = self.vectors(weights, [row.tolist() for row in torch.split(ids, list(layout.lengths))])
        lengths = torch.tensor(layout.lengths, device=ids.device)
        return vectors.repeat_interleave(lengths, 0), Past(layout.positions, ())

    def vectors(self, weights: Weights, rows: Sequence[Sequence[int]]) -> Tensor:
        """[N, d] float32, rows of similar length in one forward."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        parts = [[rows[i] for i in order[start : start + TOGETHER]] for start in range(0, len(order), TOGETHER)]
        made = torch.cat([self._part(weights, part) for part in parts])
        return made[torch.tensor(order, device=made.device).argsort()]

    def _part(self, weights: Weights, rows: Sequence[Sequence[int]]) -> Tensor:
        device = next(self._model.parameters()).device
        lengths = torch.tensor([len(row) for row in rows], device=device)
        mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
        ids = torch.full(mask.shape, self._model.config.pad_token_id or 0, device=device)
        ids[mask] = torch.tensor([i for row in rows for i in row], device=device)
        self._weights = weights
        try:
            states = self._model(input_ids=ids, attention_mask=mask.long()).last_hidden_state.float()
        finally:
            self._weights = None
        return F.normalize((states * mask[..., None]).sum(1) / lengths[:, None], dim=-1)


class Encoder(Backbone):
    """One copy of the encoder's weights with its adapters; `logits` are cosines to the actions it was told of."""

    decoder: Pooled

    def __init__(self, base: Base, threads: int = 1) -> None:
        self._open(base, threads, AutoModel)
        self.decoder = Pooled(self.model)
        self._actions: list[list[int]] = []  # token ids of the actions told of; their places are their numbers
        self._numbers: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of text that comes from outside; if it is too long its middle is left out, its ends stay."""
        config, padding = self.model.config, self.model.config.pad_token_id or 0  # RoBERTa counts from there
        limit = min(MAX_SITUATION, self.tokenizer.model_max_length, config.max_position_embeddings - padding - 1)
        ids: list[int] = self.tokenizer(text, split_special_tokens=True)["input_ids"] or [padding]
        half = limit // 2
        return ids if len(ids) <= limit else ids[:half] + ids[-half:]

    @torch.inference_mode()
    def look(self, texts: Sequence[str]) -> Tensor:
        """[N, d] of texts by the base weights, at length 1: what the memory may compare in the place of a language
        model's lower layers."""
        return self.decoder.vectors(self.weights(BASE), [self.encode(text) for text in texts])

    def number(self, action: str) -> int:
        """The token that stands for a rendered action."""
        if action not in self._numbers:
            self._numbers[action] = len(self._actions)
            self._actions.append(self.encode(action))
        return self._numbers[action]

    def logits(self, hidden: Tensor, weights: Weights, tokens: Tensor | None = None) -> Tensor:
        """[N, len(tokens)] for vectors [N, d] and the numbers of actions."""
        if tokens is None:
            raise BadConfig(
                f"[learner] objective: models of type {self.model.config.model_type!r} write no text that could be "
                'imitated; set objective = "candidates"'
            )
        rows = [self._actions[number] for number in tokens.tolist()]
        return nearness(hidden, self.decoder.vectors(weights, rows))

    def fingerprinting(self, name: str) -> Steps[list[float]]:
        """Places of fixed texts' vectors, scaled to about 1: equal (up to rounding) if and only if the weights are."""
        weights, values = self.weights(name), []
        for text in PROBES:
            vector = (yield from self.stepping(self.encode(text), weights))[0][-1]
            values.extend((vector[:PROBE_PLACES] * math.sqrt(len(vector))).tolist())
            yield
        return [round(value, 4) for value in values]


def nearness(a: Tensor, b: Tensor) -> Tensor:
    """Cosines of vectors [..., d] with [K, d], sharpened."""
    return a @ b.t() / TEMPERATURE
