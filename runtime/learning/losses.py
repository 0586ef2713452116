"""Summed log-probabilities of answers -> one loss an item. All inputs and outputs are [N], in nats."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

UNLIKELY = 0.3  # weight of pushing a disliked answer down


def sft(log_p: Tensor) -> Tensor:
    """Supervised fine-tuning: minus the log-likelihood."""
    return -log_p


def dpo(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation, sigmoid loss (arXiv 2305.18290)."""
    return -F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


def kto(log_p: Tensor, reference: Tensor, liked: Tensor, kl: Tensor, beta: float) -> Tensor:
    """Kahneman-Tversky optimisation (arXiv 2402.01306); `kl` is the batch's estimate of KL(policy || reference), >= 0."""
    gain = beta * (log_p - reference - kl.clamp(min=0).detach())
    return torch.where(liked, 1 - torch.sigmoid(gain), 1 - torch.sigmoid(-gain))


def weighted_reward(log_p: Tensor, reward: Tensor, propensity: Tensor, clip: float = 5.0) -> Tensor:
    """Likelihood weighted by reward over the chance of what was done, at most `clip`; below 0 a bounded unlikelihood."""
    liked = -reward * (1 / propensity).clamp(max=clip) * log_p
    unlikely = -UNLIKELY * -reward * torch.log1p(-log_p.exp().clamp(max=1 - 1e-6))
    return torch.where(reward > 0, liked, unlikely)
