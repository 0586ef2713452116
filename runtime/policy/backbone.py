"""The language model with its adapters: hidden states and logits for rows that share one prompt prefix.

Shapes: B rows, L tokens of the longest row, P tokens of prefix, d hidden size, V vocabulary. Rows are padded on the right
and their padding is masked for ever, so a row's numbers do not depend on its neighbours (up to rounding).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.utils import logging as transformers_logging

from runtime.errors import Unavailable
from runtime.learning.jobs import Base

BASE = "base"
PROBES = ("The light in the hall is on.", "A customer asks where the card is.", "1, 2, 3", "天气")
PROBE_TOKENS = (11, 47, 260, 1000, 4000)  # ids whose log-probabilities make the fingerprint


class Backbone:
    """One copy of the base weights; any number of adapters beside it, one of them in use at a time."""

    def __init__(self, base: Base, threads: int = 1) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self.base = base
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base.directory)
            model: Any = AutoModelForCausalLM.from_pretrained(
                base.directory, dtype=getattr(torch, base.dtype), use_safetensors=True
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise Unavailable(f"cannot load the model in {base.directory}: {str(error).splitlines()[0]}") from None
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.peft: Any = None  # the PEFT wrapper, from the first adapter on
        self._using = BASE

    @property
    def layers(self) -> int:
        return int(self.model.config.get_text_config().num_hidden_layers)

    # --- adapters -----------------------------------------------------------------------------------------------

    def load(self, adapter: str, directory: Path) -> None:
        """Keep an adapter (PEFT format, safetensors) beside the base under this name."""
        from peft import PeftModel

        if self.peft is None:
            self.peft = PeftModel.from_pretrained(self.model, directory, adapter_name=adapter, is_trainable=False)
        elif adapter not in self.peft.peft_config:
            self.peft.load_adapter(directory, adapter_name=adapter, is_trainable=False)
        self.peft.eval()

    def unload(self, adapter: str) -> None:
        if self.peft is not None and adapter in self.peft.peft_config and len(self.peft.peft_config) > 1:
            self.peft.delete_adapter(adapter)
            self._using = ""

    @contextmanager
    def using(self, adapter: str) -> Iterator[None]:
        """Run with this adapter. The wrapper's active adapter is global, so every call names the one it wants."""
        if adapter != BASE and (self.peft is None or adapter not in self.peft.peft_config):
            raise Unavailable(f"adapter {adapter!r} is not loaded")
        if adapter == BASE and self.peft is not None:
            with self.peft.disable_adapter():
                yield
            return
        if adapter != BASE and self._using != adapter:
            self.peft.set_adapter(adapter)
            self._using = adapter
        yield

    # --- forward ------------------------------------------------------------------------------------------------

    def prefix(self, ids: Sequence[int]) -> DynamicCache:
        """The KV of a prefix [1, P]. With gradients enabled it is part of the graph."""
        cache = DynamicCache(config=self.model.config)
        if ids:
            self.hidden([ids], cache, [[1] * len(ids)])
        return cache

    def repeat(self, cache: DynamicCache, rows: int) -> DynamicCache:
        """The same prefix for every row of a batch; the given cache stays as it is."""
        copy = DynamicCache(config=self.model.config)
        for index, layer in enumerate(cache.layers):
            if layer.keys is not None and layer.keys.numel():
                copy.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
        return copy

    def after(self, cache: DynamicCache, rows: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states [B, L, d] of whole rows that all follow one prefix; its cache [1, P] stays as it is."""
        past, width = int(cache.get_seq_length()), max(map(len, rows))
        mask = [[1] * (past + len(row)) + [0] * (width - len(row)) for row in rows]
        return self.hidden(rows, self.repeat(cache, len(rows)), mask)

    def hidden(self, rows: Sequence[Sequence[int]], cache: DynamicCache, mask: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states [B, L, d] of the next tokens of every row; `mask` [B, past + L] marks what is not padding."""
        ids, attention = self.padded(rows), torch.tensor(mask, device=self.device)
        positions = (attention.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return self.decode(ids, attention, positions, cache)

    def decode(self, ids: Tensor, attention: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        out = self.model.base_model(
            input_ids=ids, attention_mask=attention, position_ids=positions, past_key_values=cache, use_cache=True
        )
        hidden: Tensor = out.last_hidden_state
        return hidden

    def padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        width = max(map(len, rows))
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)

    def logits(self, hidden: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Float logits [N, V] of hidden states [N, d], or only of the given tokens [N, len(tokens)]."""
        head = self.model.get_output_embeddings()
        weight, bias = head.weight, getattr(head, "bias", None)
        if tokens is not None:
            weight, bias = weight[tokens], None if bias is None else bias[tokens]
        out = torch.nn.functional.linear(hidden.contiguous(), weight, bias).float()
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return cap * torch.tanh(out / cap) if cap else out

    @torch.no_grad()
    def fingerprint(self, adapter: str) -> list[float]:
        """Log-probabilities of fixed tokens after fixed texts: equal (up to rounding) if and only if the weights are."""
        with self.using(adapter):
            rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROBES]
            values: list[float] = []
            tokens = torch.tensor([t % self.model.config.vocab_size for t in PROBE_TOKENS], device=self.device)
            for row in rows:
                cache = DynamicCache(config=self.model.config)
                last = self.hidden([row], cache, [[1] * len(row)])[:, -1]
                values.extend(self.logits(last).log_softmax(-1)[0, tokens].tolist())
        return [round(value, 4) for value in values]
