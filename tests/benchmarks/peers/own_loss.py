"""TRL's trainer with a loss of one's own: the output head only where there is a label, by transformers' `logits_to_keep`."""

from __future__ import annotations

from typing import Any

import torch
from trl import SFTTrainer  # type: ignore[import-not-found,import-untyped,attr-defined,unused-ignore]

IGNORED = -100


class CompletionHead(SFTTrainer):  # type: ignore[misc,unused-ignore]
    """Positions before the first label of the batch are not projected; the loss is the one of TRL."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        where = (labels[:, 1:] != IGNORED).any(0).nonzero().flatten()  # the position before a label predicts it
        logits = model(**inputs, logits_to_keep=where, use_cache=False).logits
        wanted = labels[:, where + 1]
        some = wanted != IGNORED
        total = torch.nn.functional.cross_entropy(logits[some].float(), wanted[some], reduction="sum")
        return total / (num_items_in_batch if num_items_in_batch is not None else some.sum())
