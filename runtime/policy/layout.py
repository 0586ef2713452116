"""Where the tokens of one forward stand and what each may see: rows, prompts and trees are packed into one sequence.

T new tokens, S tokens before them whose keys and values are known. There is no padding, so no work is spent on it and no
row depends on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Past:
    """What was computed before: positions [S] and, for each layer, keys and values [kv heads, S, head size]. A `stem`,
    such as a prompt that many rows follow, stays where it is; `layers` hold what came after it."""

    positions: Tensor
    layers: tuple[KeysValues, ...]
    stem: tuple[KeysValues, ...] = ()

    def __len__(self) -> int:
        return len(self.positions)

    def then(self, new: Past) -> Past:
        """Both, one after the other."""
        if not len(self):
            return new
        positions = torch.cat([self.positions, new.positions])
        if not self.stem:
            return Past(positions, new.layers, self.layers)
        joined = (_joined(before, after) for before, after in zip(self.layers, new.layers, strict=True))
        return Past(positions, tuple(joined), self.stem)

    def layer(self, index: int, *new: KeysValues) -> KeysValues:
        """Keys and values of a layer, and then the new ones; one of both must be there."""
        return _joined(*(part[index] for part in (self.stem, self.layers) if part), *new)


def _joined(*parts: KeysValues) -> KeysValues:
    if len(parts) == 1:
        return parts[0]
    keys, values = zip(*parts, strict=True)
    return torch.cat(keys, 1), torch.cat(values, 1)


NO_PAST = Past(torch.empty(0, dtype=torch.long), ())


@dataclass(frozen=True)
class Layout:
    """positions [T] of the new tokens, `before` [S] of the known ones, and visible [T, S + T]: may this one see that?

    Where it is known, the structure behind `visible` is told: first `shared` tokens that all rows follow, then rows of
    these `lengths`.
    """

    positions: Tensor
    before: Tensor
    visible: Tensor
    shared: int = 0
    lengths: tuple[int, ...] = ()

    def to(self, device: torch.device) -> Layout:
        return replace(
            self, positions=self.positions.to(device), before=self.before.to(device), visible=self.visible.to(device)
        )

    def within(self, window: int | None) -> Tensor:
        """`visible`, without what is `window` tokens away or farther."""
        if window is None:
            return self.visible
        distance = self.positions[:, None] - torch.cat([self.before, self.positions])[None]
        return self.visible & (distance < window)


def rows(lengths: Sequence[int], past: Past = NO_PAST, shared: int = 0) -> Layout:
    """Rows side by side: each token sees all of `past` and its own row up to itself.

    With `shared` > 0 the first so many new tokens are a prompt that every row follows and sees.
    """
    start = len(past) + shared
    spans = [torch.arange(shared), *(torch.arange(start, start + length) for length in lengths)]
    if shared:
        spans[0] = torch.arange(len(past), start)
    row = torch.repeat_interleave(torch.arange(-1, len(lengths)), torch.tensor([shared, *lengths]))
    order = torch.arange(len(row))
    own = ((row[:, None] == row[None]) | (row[None] == -1)) & (order[:, None] >= order[None])
    known = torch.ones(len(row), len(past), dtype=torch.bool)
    return Layout(torch.cat(spans), past.positions, torch.cat([known, own], 1), shared, tuple(lengths))


def seeing(past: Past, positions: Sequence[int], columns: Sequence[Sequence[int]]) -> Layout:
    """New tokens that each see the columns given for them; column S + i is new token i."""
    visible = torch.zeros(len(positions), len(past) + len(positions), dtype=torch.bool)
    for i, seen in enumerate(columns):
        visible[i, list(seen)] = True
    return Layout(torch.tensor(positions), past.positions, visible)
