"""How a training step moves the parameters, and how its size falls over a run."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def make(
    kind: str, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)
    if kind == "adafactor":
        return torch.optim.Adafactor(parameters, lr=lr, weight_decay=weight_decay)
    if kind == "adam":
        return torch.optim.Adam(parameters, lr=lr)
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)


def schedule(kind: str, step: int, total: int, *, warm_up: float, floor: float) -> float:
    """Share of the learning rate at a step: up over the warm-up, then down to `floor` (`constant`: as it is)."""
    warm = max(1, round(total * warm_up)) if warm_up else 0
    if step < warm:
        return (step + 1) / warm
    if kind == "constant":
        return 1.0
    done = (step - warm) / max(1, total - warm)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if kind == "cosine" else 1 - done
    return floor + (1 - floor) * shape
