"""What holds an update small or smooth: its L1 and squared L2 norm, and a running mean of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Norm:
    """L1 (sum of absolute values) or squared L2 of what is added to a matrix."""

    squared: bool

    def of(self, delta: Tensor) -> Tensor:
        return delta.pow(2).sum() if self.squared else delta.abs().sum()

    def of_product(self, a: Tensor, b: Tensor, scale: float) -> Tensor:
        """Of scale * B @ A for A [r, in], B [out, r]. The squared one without forming it: tr((BᵀB)(AAᵀ))."""
        if self.squared:
            return scale**2 * ((b.t() @ b) * (a @ a.t())).sum()
        return scale * (b @ a).abs().sum()


L1, L2 = Norm(squared=False), Norm(squared=True)


class Average:
    """Exponential running mean of parameters; corrected for its start at zero, as in Adam (arXiv 1412.6980)."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay, self._count = parameters, decay, 0
        self._sums = [torch.zeros_like(parameter) for parameter in parameters]

    @torch.no_grad()
    def update(self) -> None:
        self._count += 1
        for total, parameter in zip(self._sums, self._parameters, strict=True):
            total.lerp_(parameter, 1 - self._decay)

    def values(self) -> list[Tensor]:
        """The mean so far; the parameters themselves before the first update."""
        if not self._count:
            return [parameter.detach().clone() for parameter in self._parameters]
        share = 1 - self._decay**self._count
        return [total / share for total in self._sums]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are the mean inside the block."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        self._set(self.values())
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def _set(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)
