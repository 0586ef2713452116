"""Any causal language model of transformers as it is: slower than `decoder`, whole models only, LoRA by hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.pytorch_utils import Conv1D

from runtime.policy.decoder import Watch, Weights
from runtime.policy.layout import Layout, Past
from runtime.policy.steps import Steps


class Whole:
    """The model's own forward, one packed row at a time."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._weights: Weights | None = None
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | Conv1D):
                module.register_forward_hook(self._hook(name))

    def _hook(self, path: str) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output if self._weights is None else self._weights.added(output, inputs[0], path)

        return add

    def hidden(
        self, weights: Weights, ids: Tensor, layout: Layout, past: Past, watch: Watch | None = None
    ) -> tuple[Tensor, Past]:
        """Hidden states [T, d] after the last norm, and what these tokens add to the past. There is nothing to `watch`."""
        cache = DynamicCache(config=self._model.config)
        for index in range(len(past.layers)):
            keys, values = past.layer(index)
            cache.update(keys[None], values[None], index)
        dtype = next(self._model.parameters()).dtype
        mask = torch.zeros(layout.visible.shape, dtype=dtype, device=ids.device)
        mask = mask.masked_fill(~layout.visible, torch.finfo(dtype).min)
        self._weights = weights
        try:
            out = self._model.base_model(
                input_ids=ids[None], attention_mask=mask[None, None], position_ids=layout.positions[None],
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
        finally:
            self._weights = None
        new = tuple((layer.keys[0, :, len(past) :], layer.values[0, :, len(past) :]) for layer in cache.layers)
        return out.last_hidden_state[0], Past(layout.positions, new)

    def stepping(self, weights: Weights, ids: Tensor, layout: Layout) -> Steps[tuple[Tensor, Past]]:
        """In one step: the model's own code cannot be interrupted."""
        yield
        return self.hidden(weights, ids, layout, Past(ids[:0], ()))
