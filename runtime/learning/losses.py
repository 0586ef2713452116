"""Summed log-probabilities of answers -> one loss an item. All inputs and outputs are [N], in nats."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

UNLIKELY = 0.3  # weight of pushing a disliked answer down
SURE = 0.9  # probability of a disliked answer from which it is pushed down no harder


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
    """Likelihood weighted by reward over the chance of what was done, at most `clip`; below 0 unlikelihood, -log(1 - p),
    which goes on straight from p = SURE on: there its slope would grow without bound."""
    liked = -reward * (1 / propensity).clamp(max=clip) * log_p
    sure = torch.tensor(math.log(SURE), dtype=log_p.dtype, device=log_p.device)
    below = -torch.log1p(-torch.minimum(log_p, sure).exp())
    beyond = SURE / (1 - SURE) * (log_p - sure).clamp(min=0)
    return torch.where(reward > 0, liked, UNLIKELY * -reward * (below + beyond))
