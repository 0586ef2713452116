"""Memory -> what it would say of each lesson of a scope had that one not been taught: of all of them in one product.

The same closed form as `Memory.without`, which asks about one of them. It works on copies, so that another thread can do it
while the memory goes on learning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.learning.shelf import Floats, Lesson, Rows
from runtime.messages import Action

LEAST = 1e-6  # what is left of a lesson's situation without it, at least


@dataclass(frozen=True)
class LeftOut:
    """The N lessons of a scope, of which each taught one of its K actions."""

    lessons: tuple[Lesson, ...]
    actions: tuple[Action, ...]
    own: Rows  # [N] the action that each taught
    counts: Floats  # [N]
    features: Floats  # [N, size]
    solved: Floats  # [size, size]
    answers: Floats  # [size, K]

    def ridge(self) -> Floats:
        """[N, K] `Recalled.ridge` of each lesson's situation without it."""
        leverage = self.counts * np.einsum("nd,nd->n", self.features @ self.solved, self.features)
        said: Floats = self.features @ self.answers
        said[np.arange(len(said)), self.own] -= leverage
        said /= np.maximum(1.0 - leverage, LEAST)[:, None]
        return said

    def company(self) -> Rows:
        """[N] other lessons that taught the same."""
        return np.bincount(self.own)[self.own] - 1
