"""Serving on a CPU: the matrices in the order oneDNN computes in, layers of one input as one matrix.

F.linear would reorder a bfloat16 matrix at every call, which for the few tokens of a decision costs as much as the
product. The price is a private copy of the layers (212 MB for the default model); the trainer keeps to the shared file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from runtime.policy import shared
from runtime.policy.adapter import Adapter
from runtime.policy.decoder import Weights

PARTS = ("weight", "bias")


class Pack(NamedTuple):
    """One matrix [in, sum(out)] in an opaque layout, and where each layer's outputs end."""

    matrix: Tensor
    bias: Tensor | None
    sizes: tuple[int, ...]


class Packs:
    """The base model's matrices, shared by all adapters; made when first used."""

    def __init__(self, base: Mapping[str, Tensor]) -> None:
        self._base = base
        self._made: dict[tuple[str, ...], Pack] = {}

    def get(self, paths: tuple[str, ...], transposed: bool) -> Pack:
        if paths not in self._made:
            self._made[paths] = pack(self._base, paths, transposed)
            shared.release(self._base[f"{path}.weight"] for path in paths)
        return self._made[paths]


def pack(tensors: Mapping[str, Tensor], paths: tuple[str, ...], transposed: bool) -> Pack:
    parts = [tensors[f"{path}.weight"] for path in paths]
    parts = [part.t() if transposed else part for part in parts]
    biases = [tensors.get(f"{path}.bias") for path in paths]
    given = [bias for bias in biases if bias is not None]
    whole = torch.cat(parts).contiguous()
    return Pack(
        matrix=torch.ops.mkldnn._reorder_linear_weight(whole, None),
        bias=torch.cat(given) if given else None,
        sizes=tuple(part.shape[0] for part in parts),
    )


def possible(device: torch.device) -> bool:
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() or torch.backends.mkldnn.enabled)


class Packed(Weights):
    """As `Weights`, without gradients."""

    def __init__(self, base: Mapping[str, Tensor], adapter: Adapter, packs: Packs) -> None:
        super().__init__(base, adapter)
        self._packs = packs
        self._own = Packs({**base, **self._changed}) if adapter.deltas else packs
        self._factors: dict[tuple[str, ...], tuple[Tensor, Tensor] | None] = {}

    def linear(self, x: Tensor, path: str, transposed: bool = False) -> Tensor:
        return self._product(x, (path,), transposed)

    def joined(self, x: Tensor, paths: tuple[str, ...], transposed: bool = False) -> tuple[Tensor, ...]:
        return torch.split(self._product(x, paths, transposed), list(self._pack(paths, transposed).sizes), -1)

    def _pack(self, paths: tuple[str, ...], transposed: bool) -> Pack:
        changed = self._changed and any(f"{path}.{part}" in self._changed for path in paths for part in PARTS)
        return (self._own if changed else self._packs).get(paths, transposed)

    def _product(self, x: Tensor, paths: tuple[str, ...], transposed: bool) -> Tensor:
        found = self._pack(paths, transposed)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, found.matrix, found.bias, "none", [], "")
        if paths not in self._factors:
            self._factors[paths] = self._joined_factors(paths, found.sizes)
        factors = self._factors[paths]
        return y if factors is None else torch.addmm(y, x @ factors[0], factors[1])

    def _joined_factors(self, paths: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[Tensor, Tensor] | None:
        """The LoRA factors of several layers as one pair: down [in, sum(r)], up [sum(r), sum(out)], block by block."""
        found = [(i, self._loras[path]) for i, path in enumerate(paths) if path in self._loras]
        if not found:
            return None
        down = torch.cat([lora.down for _, lora in found]).t().contiguous()
        up = down.new_zeros(down.shape[1], sum(sizes))
        row = 0
        for i, lora in found:
            start = sum(sizes[:i])
            up[row : row + lora.up.shape[1], start : start + sizes[i]] = lora.up.t()
            row += lora.up.shape[1]
        return down, up
