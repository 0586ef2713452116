"""Below the lowest trained layer nothing changes while a run trains: its hidden states are computed once, not every epoch.

Exact: same tokens, positions and mask give the same numbers, since nothing below the cut is trained or dropped out. The
model's own code runs both halves, with stand-ins in the place of the layers that are left out, so any decoder of
transformers works whose layers hand on one tensor. What is not covered: keeping the states from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from runtime.policy.backbone import Backbone

LIMIT = 512 << 20  # bytes of hidden states that are kept; more examples than that train without the shortcut
BATCH = 16  # rows of one pass below the cut


class StandIn(nn.Module):
    """In the place of a layer: hands on what it gets, or what it was given instead."""

    def __init__(self, given: Tensor | None = None) -> None:
        super().__init__()
        self.given, self.seen = given, torch.empty(0)

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        self.seen = hidden_states
        return hidden_states if self.given is None else self.given


class Boundary:
    """`forward(prefix, rows)` as `Backbone.after` would compute it, from states kept at the input of layer `cut`."""

    def __init__(self, backbone: Backbone, layers: nn.ModuleList, cut: int) -> None:
        self._backbone, self._layers, self._cut = backbone, layers, cut
        self._kept: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}  # (prefix, row) -> [L, d]

    def keep(self, prefix: tuple[int, ...], rows: Sequence[tuple[int, ...]]) -> None:
        """Compute and keep the states of these rows after this prefix."""
        rows = sorted(set(rows), key=len)
        with torch.no_grad(), self._standing_in(range(self._cut, len(self._layers))) as stands:
            cache = self._backbone.prefix(prefix)
            if prefix:
                self._kept[prefix, ()] = stands[0].seen[0]
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                self._backbone.after(cache, part)
                self._kept.update({(prefix, row): stands[0].seen[i, : len(row)].clone() for i, row in enumerate(part)})

    def __call__(self, prefix: Sequence[int], rows: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states [B, L, d] of rows that were kept, with the gradient of everything from the cut on."""
        start = tuple(prefix)
        states = [self._kept[start, tuple(row)] for row in rows]
        with self._standing_in(range(self._cut)) as stands:
            if start:
                stands[-1].given = self._kept[start, ()][None]
            cache = self._backbone.prefix(start)
            for index in range(self._cut if start else 0):  # the first layer's length is what positions and masks go by
                blank = states[0].new_zeros(1, 1, len(start), 1)
                cache.update(blank, blank, index)
            stands[-1].given = nn.utils.rnn.pad_sequence(states, batch_first=True)
            return self._backbone.after(cache, rows)

    @contextmanager
    def _standing_in(self, places: range) -> Iterator[list[StandIn]]:
        layers, stands = self._layers, [StandIn() for _ in places]
        real = [layers[index] for index in places]
        for index, stand in zip(places, stands, strict=True):
            layers[index] = stand
        try:
            yield stands
        finally:
            for index, layer in zip(places, real, strict=True):
                layers[index] = layer


def between(
    backbone: Backbone, cut: int, prefixes: Sequence[tuple[int, ...]], rows: Sequence[tuple[int, ...]]
) -> Boundary | None:
    """The boundary at `cut` with the states of these rows (one prefix each), or None where it cannot be used."""
    layers = next((m for m in backbone.model.base_model.modules() if _stack(m, backbone.layers)), None)
    width = backbone.model.config.get_text_config().hidden_size * backbone.model.dtype.itemsize
    if layers is None or not cut or sum(map(len, set(rows))) * width > LIMIT:
        return None
    boundary = Boundary(backbone, layers, cut)
    for prefix in sorted(set(prefixes)):
        boundary.keep(prefix, [row for row, own in zip(rows, prefixes, strict=True) if own == prefix])
    return boundary


def _stack(module: nn.Module, layers: int) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) == layers
