"""The house behind `plugins.simulated_home`: a model, eight habits, a resident who talks, and labelled situations."""

from __future__ import annotations

from plugins.house.scenes import Case, life, persistence, stream, unseen

__all__ = ["Case", "life", "persistence", "stream", "unseen"]
