"""Adapter directory -> accuracy on the held items by Corrigible's own scorer, so that peers are judged as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from runtime.learning.jobs import Base
from runtime.policy.backbone import Backbone
from runtime.policy.client import BULK_BATCH, BULK_FLOOR
from runtime.policy.scoring import Scorer
from tests.benchmarks.peers import data


class Judge:
    def __init__(self, contents: dict[str, Any], threads: int) -> None:
        self._catalogue = data.catalogue(contents)
        self._held = sorted(contents["held"], key=lambda item: len(item["ids"]))
        self._scorer = Scorer(
            Backbone(msgspec.convert(contents["base"], Base), threads),
            contents["instruction"],
            reply_tokens=0,
            free_below=0.0,
            catalogue_tokens=contents["catalogue_tokens"],
        )

    def __call__(self, adapter: Path) -> float:
        """The adapter's name is its path, so that each is loaded once."""
        backbone, name, right = self._scorer.backbone, adapter.name.replace("-", ""), 0
        backbone.load(name, adapter)
        for start in range(0, len(self._held), BULK_BATCH):
            part = self._held[start : start + BULK_BATCH]
            rows = self._scorer.score([item["input"] for item in part], self._catalogue, name, BULK_FLOOR)
            said = [self._catalogue.render(row.chosen) for row in rows]
            right += sum(item["answer"] == text for item, text in zip(part, said, strict=True))
        self._scorer.forget(name)
        return round(right / len(self._held), 4)
