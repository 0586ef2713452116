"""Below the lowest trained layer nothing ever changes: its hidden states are computed once an example, not every epoch.

Exact: same tokens, positions and mask give the same numbers, since nothing below the cut is trained or dropped out. The
states are kept in `states` over epochs and, on disk, over cycles. The prompt is part of every step, with its gradient:
a detached KV inside trained layers gives a wrong one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runtime.errors import BadConfig
from runtime.learning.states import Row, States
from runtime.policy import layout as layouts
from runtime.policy import shared
from runtime.policy.backbone import BASE, Backbone
from runtime.policy.decoder import Decoder, Weights, layer_of
from runtime.policy.layout import NO_PAST, Layout, Past

TOKENS = 512  # of one pass below the cut


class Boundary:
    """`forward(weights, prefix, rows)`: from the input of layer `cut` on, with the gradient of everything above."""

    def __init__(self, backbone: Backbone, cut: int, states: States) -> None:
        self._backbone, self._cut, self._states = backbone, cut, states

    @property
    def _decoder(self) -> Decoder:
        decoder = self._backbone.decoder
        if not isinstance(decoder, Decoder):
            kind = self._backbone.model.config.model_type
            raise BadConfig(f'[learner] layers: models of type {kind!r} are trained whole; set layers = "all"')
        return decoder

    @torch.no_grad()
    def keep(self, prefix: Row, rows: Sequence[Row], *, passing: bool = False) -> int:
        """Compute the states of the rows that are not kept yet; returns how many those were. `passing` ones are kept until
        `let_go`."""
        if not self._cut:
            return 0
        wanted = self._states.missing(prefix, [(), *dict.fromkeys(rows)] if prefix else [*dict.fromkeys(rows)])
        if not wanted:
            return 0
        past = self._prompt(prefix, () in wanted)
        for part in _parts([row for row in wanted if row]):
            states, _ = self._below(
                [token for row in part for token in row], layouts.rows([*map(len, part)], past), past
            )
            split = torch.split(states, [len(row) for row in part])
            self._states.put(prefix, dict(zip(part, split, strict=True)), passing=passing)
        self._states.flush()
        self._release()
        return len(wanted)

    def let_go(self) -> None:
        self._states.let_go()

    def _release(self) -> None:
        """The layers below the cut are not looked at while the others are trained: their memory may go."""
        state = self._backbone.state
        shared.release(state[path] for path in state if (layer := layer_of(path)) is not None and layer < self._cut)

    def _prompt(self, prefix: Row, wanted: bool) -> Past:
        """What the rows after a prompt see of it below the cut; its own states are kept if they are `wanted`."""
        if not prefix:
            return NO_PAST
        states, past = self._below(prefix, layouts.rows([len(prefix)]), NO_PAST)
        if wanted:
            self._states.put(prefix, {(): states})
        return past

    def _below(self, ids: Sequence[int], layout: Layout, past: Past) -> tuple[Tensor, Past]:
        """States [T, d] at the input of layer `cut`."""
        backbone = self._backbone
        weights, placed = backbone.weights(BASE), layout.to(backbone.device)
        states = self._decoder.embed(weights, torch.tensor(ids, device=backbone.device), placed)
        return self._decoder.run(weights, states, placed, past, range(self._cut))

    def __call__(self, weights: Weights, prefix: Sequence[int], rows: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states [sum(L), d] of the rows; with a cut they must have been kept."""
        decoder, start = self._decoder, tuple(prefix)
        layout = layouts.rows([len(row) for row in rows], shared=len(start)).to(self._backbone.device)
        if self._cut:
            kept = [self._states.get(start, tuple(row)) for row in ([(), *rows] if start else rows)]
            states = torch.cat(kept).to(self._backbone.device)
        else:
            ids = [*start, *(token for row in rows for token in row)]
            states = decoder.embed(weights, torch.tensor(ids, device=self._backbone.device), layout)
        states, _ = decoder.run(weights, states, layout, NO_PAST, range(self._cut, self._backbone.layers))
        return decoder.finish(weights, states[len(start) :])


def plain(backbone: Backbone) -> Boundary | Plain:
    """The whole model at every step."""
    return Boundary(backbone, 0, States()) if isinstance(backbone.decoder, Decoder) else Plain(backbone)


class Plain:
    """For architectures that only transformers can compute."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone

    def keep(self, prefix: Row, rows: Sequence[Row], *, passing: bool = False) -> int:
        return 0

    def let_go(self) -> None:
        pass

    def __call__(self, weights: Weights, prefix: Sequence[int], rows: Sequence[Sequence[int]]) -> Tensor:
        layout = layouts.rows([len(row) for row in rows], shared=len(prefix))
        ids = [*prefix, *(token for row in rows for token in row)]
        return self._backbone.hidden(ids, layout, NO_PAST, weights)[0][len(prefix) :]


def _parts(rows: Sequence[Row]) -> list[list[Row]]:
    parts: list[list[Row]] = []
    for row in sorted(rows, key=len):
        if parts and sum(map(len, parts[-1])) + len(row) <= TOKENS:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts
