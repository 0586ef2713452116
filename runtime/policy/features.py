"""What a situation is like, in numbers that no training changes: the features that the memory compares.

Means over the situation's tokens of frozen states at two depths: of the embeddings (which words there are) and a quarter
of the way up (what they are beside each other). Deeper ones did worse, and no adapter of the upper layers touches these,
so they never grow stale. Each depth is seen from the mean of some reference sentences, in units of their spread, at
length 1; both depths count the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from runtime.policy.backbone import Backbone
from runtime.policy.decoder import Weights
from runtime.policy.layout import Past
from runtime.policy.whole import Whole

DEPTH = 4  # the second look is after one layer of so many
SPREAD = 0.1  # of the mean spread is added to each, since few sentences say little of a single number
TOGETHER = 512  # tokens of one pass
REFERENCE = (
    "The light in the hall is on.", "It is dark and cold in the kitchen.", "Please turn it off.", "What time is it?",
    "My card has not arrived yet.", "How much does it cost to send money abroad?", "I forgot my password.",
    "Play some quiet music in the bedroom.", "Somebody is at the door.", "The window has been open for an hour.",
    "Set the temperature to twenty degrees.", "Can I get a refund for this order?", "Remind me to call my mother tomorrow.",
    "The machine stopped with an error.", "Why was I charged twice?", "There is nobody at home.", "Wake me up at seven.",
    "Where is the nearest bank?", "The meeting was moved to Friday.", "I would like to speak to a person.",
    "humidity 45 %, rising", "evening, dim, someone is here", "It rained all night.", "Book a table for two.",
    "Cancel my subscription.", "The delivery is late again.", "Is it safe to eat this?", "Add milk to the list.",
    "Wie ist das Wetter heute?", "Apaga la luz del salón.", "Il fait froid ici.", "今天天气如何？",
)  # fmt: skip


class Watching:
    """Told the states of a forward that happens anyway, it keeps the means it needs."""

    def __init__(self, layer: int, lengths: Sequence[int], counts: Sequence[int]) -> None:
        """`lengths` of the rows, and the first `counts` of their tokens that are the situation."""
        self._layer, self._lengths, self._counts = layer, lengths, counts
        self.means: list[Tensor] = []

    def __call__(self, index: int, states: Tensor) -> None:
        if index in (0, self._layer):
            self.means.append(_means(states, self._lengths, self._counts))


class Features:
    """Of rows that follow one prompt; `past` is what the base model makes of that."""

    def __init__(self, backbone: Backbone, past: Past) -> None:
        self._backbone, self._past = backbone, past
        self._layer = max(1, backbone.layers // DEPTH)
        encode = backbone.tokenizer
        rows = [encode(text, add_special_tokens=False)["input_ids"] for text in REFERENCE]
        with torch.inference_mode():
            depths = self._passes(rows, [len(row) for row in rows])
            self._seen_from = [(x.mean(0), x.std(0) + SPREAD * x.std(0).mean()) for x in depths]

    def watching(self, weights: Weights, lengths: Sequence[int], counts: Sequence[int]) -> Watching | None:
        """Something to watch a forward under these weights with; None if they change what is looked at."""
        if isinstance(self._backbone.decoder, Whole) or weights.lowest < self._layer:
            return None
        return Watching(self._layer, lengths, counts)

    @torch.inference_mode()
    def of(self, rows: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
        """[N, size] float32 of rows, by a pass of their own through the lower layers."""
        return self.seen(self._passes(rows, counts))

    def seen(self, means: Sequence[Tensor]) -> Tensor:
        """[N, size] of the means [N, d] of each depth: from where the reference sentences are."""
        parts = [
            F.normalize((mean - centre) / spread, dim=-1)
            for mean, (centre, spread) in zip(means, self._seen_from, strict=True)
        ]
        return torch.cat(parts, -1) / math.sqrt(len(parts))

    def _passes(self, rows: Sequence[Sequence[int]], counts: Sequence[int]) -> list[Tensor]:
        """Means [N, d] of each depth."""
        made: list[list[Tensor]] = []
        start, end = 0, 0
        while start < len(rows):
            tokens = 0
            while end < len(rows) and (end == start or tokens + len(rows[end]) <= TOGETHER):
                tokens += len(rows[end])
                end += 1
            part = rows[start:end]
            depths = self._backbone.frozen(self._past, part, self._layer)
            made.append([_means(states, [len(row) for row in part], counts[start:end]) for states in depths])
            start = end
        return [torch.cat(depth) for depth in zip(*made, strict=True)]


def _means(states: Tensor, lengths: Sequence[int], counts: Sequence[int]) -> Tensor:
    """[N, d] float32: of the first `counts` states of each row; states [T, d]."""
    rows = torch.split(states, list(lengths))
    return torch.stack([row[: max(count, 1)].float().mean(0) for row, count in zip(rows, counts, strict=True)])
