"""Attention over packed rows. T new tokens, S known ones; heads that share a key stand below each other as if they were
more queries, so keys are never copied.

Rows that share a prompt are not compared with each other at all: each looks at what they have in common in one matrix
product and at itself in another, under one softmax. For 16 rows of 30 tokens after 360 that is a third of the products
of a mask over everything, and matrix products are twice as fast here as the fused kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from runtime.policy.layout import Layout

FEW = 48  # tokens up to which packed rows are compared as a whole: fewer steps than taking them apart
LARGE = 1 << 20  # pairs of tokens above which the fused kernel's memory matters more than its speed: below it, it is
# slower than matrix products (1.5x for 25 tokens after 360, 3x for 360 among themselves with gradients)
NEVER = float("-inf")


@dataclass(frozen=True)
class Heads:
    """How heads are made and what they see. `window`: tokens back, None = all; `softcap`: Gemma 2's bound on scores."""

    heads: int
    kv_heads: int
    size: int
    scale: float
    softcap: float | None = None
    window: int | None = None


class Attention:
    """The attention of one forward: masks and indices are made once for all layers."""

    def __init__(self, layout: Layout, dtype: torch.dtype) -> None:
        self._layout, self._dtype = layout, dtype
        self._masks: dict[tuple[int | None, int, bool], Tensor] = {}
        self._row_masks: dict[tuple[int | None, int], Tensor] = {}
        lengths = layout.lengths
        self._apart = len(lengths) > 1 and len(layout.positions) > FEW
        self._common = len(layout.before) + layout.shared
        if self._apart:
            device, width = layout.positions.device, max(lengths)
            starts = torch.tensor([layout.shared, *lengths]).cumsum(0)[:-1]
            inside = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
            padded = torch.where(inside, starts[:, None] + torch.arange(width)[None], layout.shared)
            self._padded = padded.to(device)  # [B, L]: which new token stands there, any one in the padding
            self._inside = inside.to(device)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, heads: Heads) -> Tensor:
        """q [T, heads, size], k and v [kv heads, S + T, size] -> [T, heads * size]."""
        if not self._apart:
            return self._whole(q, k, v, heads, shared=False)
        rows = self._rows(q, k, v, heads)
        if not self._layout.shared:
            return rows
        seen = self._common
        return torch.cat([self._whole(q[: self._layout.shared], k[:, :seen], v[:, :seen], heads, shared=True), rows])

    def _whole(self, q: Tensor, k: Tensor, v: Tensor, heads: Heads, *, shared: bool) -> Tensor:
        """Every query against every key, with a mask. `shared`: only the tokens that all rows follow."""
        count, groups = q.shape[0], heads.heads // heads.kv_heads
        q = _grouped(q, heads).reshape(heads.kv_heads, groups * count, heads.size)
        mask = self._mask(heads.window, groups, shared)
        if heads.softcap is None and count * k.shape[1] > LARGE:
            out = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, scale=heads.scale)[0]
        else:
            out = _scores(q, k, heads, mask).softmax(-1) @ v
        return out.view(heads.kv_heads, groups, count, heads.size).permute(2, 0, 1, 3).reshape(count, -1)

    def _mask(self, window: int | None, groups: int, shared: bool) -> Tensor:
        """[groups * T, S + T]: 0 where it may see, -inf elsewhere."""
        key = window, groups, shared
        if key not in self._masks:
            visible = self._layout.within(window)
            if shared:
                visible = visible[: self._layout.shared, : self._common]
            self._masks[key] = self._additive(visible).repeat(groups, 1)
        return self._masks[key]

    def _additive(self, visible: Tensor) -> Tensor:
        return torch.zeros(visible.shape, dtype=self._dtype, device=visible.device).masked_fill_(~visible, NEVER)

    def _rows(self, q: Tensor, k: Tensor, v: Tensor, heads: Heads) -> Tensor:
        """What stands in rows, each against the common part and itself."""
        count, width = self._padded.shape
        groups, shape = heads.heads // heads.kv_heads, (heads.kv_heads, count * (heads.heads // heads.kv_heads), width)
        at = self._padded.flatten()
        q = _grouped(q[at].view(count, width, heads.heads, heads.size), heads)  # [kv heads, B, groups, L, size]
        common_k, common_v = k[:, : self._common], v[:, : self._common]
        own = at + len(self._layout.before)
        own_k, own_v = (x[:, own].view(heads.kv_heads * count, width, heads.size) for x in (k, v))
        flat = q.reshape(heads.kv_heads, -1, heads.size)
        with_common = _scores(flat, common_k, heads).view(*shape, self._common)
        with_own = _scores(q.reshape(heads.kv_heads * count, groups * width, heads.size), own_k, heads).view(
            *shape, width
        )
        mask = self._row_mask(heads.window, groups)
        weights = (torch.cat([with_common, with_own], -1) + mask).softmax(-1)
        out = weights[..., : self._common].reshape(heads.kv_heads, -1, self._common) @ common_v
        out_own = weights[..., self._common :].reshape(heads.kv_heads * count, groups * width, width) @ own_v
        whole = out.view(heads.kv_heads, count, groups, width, heads.size) + out_own.view(
            heads.kv_heads, count, groups, width, heads.size
        )
        return whole.permute(1, 3, 0, 2, 4).reshape(count * width, -1)[self._inside.flatten()]

    def _row_mask(self, window: int | None, groups: int) -> Tensor:
        """[B * groups, L, common + L], or less where rows are alike."""
        key = window, groups
        if key not in self._row_masks:
            layout, width = self._layout, self._padded.shape[1]
            causal = torch.ones(width, width, dtype=torch.bool, device=self._padded.device).tril()
            visible = torch.cat([causal.new_ones(width, self._common), causal], 1)[None]
            if window is not None:
                known = torch.cat([layout.before, layout.positions[: layout.shared]])
                own = layout.positions[self._padded]
                far = torch.cat([known[None].expand(len(own), -1), own], 1)
                visible = (visible & (own[:, :, None] - far[:, None] < window)).repeat_interleave(groups, 0)
            self._row_masks[key] = self._additive(visible)
        return self._row_masks[key]


def _grouped(q: Tensor, heads: Heads) -> Tensor:
    """[T, heads, size] -> [kv heads, groups, T, size]; with rows [B, L, heads, size] -> [kv heads, B, groups, L, size]."""
    split = q.view(*q.shape[:-2], heads.kv_heads, heads.heads // heads.kv_heads, heads.size)
    return split.permute(1, 2, 0, 3) if q.dim() == 3 else split.permute(2, 0, 3, 1, 4)


def _scores(q: Tensor, k: Tensor, heads: Heads, mask: Tensor | None = None) -> Tensor:
    """q [N, T, size], k [N, S, size], mask [T, S] -> [N, T, S]."""
    if mask is not None and heads.softcap is None:
        return torch.baddbmm(mask.expand(len(q), -1, -1), q, k.transpose(1, 2), alpha=heads.scale)
    scores = q @ k.transpose(1, 2) * heads.scale
    if heads.softcap is not None:
        scores = torch.tanh(scores / heads.softcap) * heads.softcap
    return scores if mask is None else scores + mask
