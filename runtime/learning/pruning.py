"""Smaller adapters and sparser base models: what adds little is dropped."""

from __future__ import annotations

import torch
from torch import Tensor


def truncate(a: Tensor, b: Tensor, energy: float) -> tuple[Tensor, Tensor]:
    """Factors A' [r', in], B' [out, r'] of the least rank r' >= 1 that keep `energy` of the squared singular values of
    B @ A; the product is never formed (thin QR of both factors)."""
    q_b, r_b = torch.linalg.qr(b.float())
    q_a, r_a = torch.linalg.qr(a.float().t())
    u, s, vh = torch.linalg.svd(r_b @ r_a.t())
    kept = s.pow(2).cumsum(0) / s.pow(2).sum().clamp(min=1e-30)
    rank = min(int((kept < energy).sum()) + 1, len(s)) if s.any() else 1
    root = s[:rank].sqrt()
    return (vh[:rank] * root[:, None]) @ q_a.t(), q_b @ (u[:, :rank] * root)


def padded(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same product with zeros up to a rank."""
    more = rank - len(a)
    return torch.cat([a, a.new_zeros(more, a.shape[1])]), torch.cat([b, b.new_zeros(len(b), more)], 1)
