"""The language model with its adapters: hidden states and logits of packed rows, the adapter an argument of every call.

Shapes: T new tokens, S tokens whose keys and values are known, d hidden size, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from runtime.errors import Unavailable
from runtime.learning.jobs import Base
from runtime.policy import adapter as adapters
from runtime.policy import layout as layouts
from runtime.policy import packed, shared
from runtime.policy.adapter import Adapter
from runtime.policy.decoder import Decoder, Watch, Weights
from runtime.policy.layout import NO_PAST, Layout, Past
from runtime.policy.steps import Steps, finish
from runtime.policy.whole import Whole

BASE = "base"
PROBES = ("The light in the hall is on.", "A customer asks where the card is.", "1, 2, 3", "天气")
PROBE_TOKENS = (11, 47, 260, 1000, 4000)  # ids whose log-probabilities make the fingerprint
PART = 2048  # tokens of the vocabulary whose logits are one step of it: all at once hold a decision up by 7 ms
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of logits against those of transformers, relative; else 0.05


class Backbone:
    """One copy of the base weights, mapped from its file; any number of adapters beside it."""

    _packs: packed.Packs | None = None  # the layers as serving wants them

    def __init__(self, base: Base, threads: int = 1, *, serving: bool = False) -> None:
        """`serving`: no gradients will be asked for, so the layers may be laid out for speed."""
        self._open(base, threads, AutoModelForCausalLM)
        head = self.model.get_output_embeddings()
        self._head = next(name for name, module in self.model.named_modules() if module is head)
        self.decoder: Decoder | Whole = self._decoder()
        if serving and isinstance(self.decoder, Decoder) and packed.possible(self.device):
            self._packs = packed.Packs(self.state)
            self._adapters[BASE] = self._seen_through(Adapter())

    def _open(self, base: Base, threads: int, family: Any) -> None:
        """Tokenizer, model (`family` is one of transformers' auto classes) and what every kind of model has."""
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        torch.set_num_threads(threads)
        self.base = base
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype: torch.dtype = getattr(torch, base.dtype)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base.directory)
            model: Any = family.from_pretrained(base.directory, dtype=self.dtype, use_safetensors=True)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise Unavailable(f"cannot load the model in {base.directory}: {str(error).splitlines()[0]}") from None
        shared.share(model, Path(base.directory))
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.state: dict[str, Tensor] = dict(self.model.named_parameters(remove_duplicate=False))
        self._adapters: dict[str, Weights] = {BASE: Weights(self.state, Adapter())}

    def _decoder(self) -> Decoder | Whole:
        """The fast path where it computes what transformers computes, else the model as it is. Raises Unavailable if not
        even that agrees (a head that does more than multiply)."""
        try:
            fast = Decoder(self.model)
            if self._agrees(fast):
                return fast
        except (AttributeError, KeyError, RuntimeError, TypeError):
            pass
        whole = Whole(self.model)
        if self._agrees(whole):
            return whole
        raise Unavailable(
            f"models of type {self.model.config.model_type!r} are not supported; use one of the families Llama, Qwen, "
            "Mistral, Gemma or GPT-2"
        )

    @torch.no_grad()
    def _agrees(self, decoder: Decoder | Whole) -> bool:
        """Two rows after a shared prompt, against the plain model on each whole text."""
        texts = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROBES[:3]]
        prompt, rows = texts[0], texts[1:]
        weights = self._adapters[BASE]
        _, past = decoder.hidden(weights, self._tensor(prompt), layouts.rows([len(prompt)]).to(self.device), NO_PAST)
        hidden, _ = decoder.hidden(
            weights,
            self._tensor([i for row in rows for i in row]),
            layouts.rows([*map(len, rows)], past).to(self.device),
            past,
        )
        ours = self.logits(hidden, weights)
        theirs = torch.cat(
            [self.model(self._tensor(prompt + row)[None]).logits[0, len(prompt) :].float() for row in rows]
        )
        error = (ours - theirs).norm() / theirs.norm()
        return bool(error < TOLERANCE.get(self.dtype, 0.05))

    @property
    def layers(self) -> int:
        return int(self.model.config.get_text_config().num_hidden_layers)

    # --- adapters -----------------------------------------------------------------------------------------------

    def load(self, name: str, directory: Path) -> None:
        """Keep an adapter beside the base under this name."""
        finish(self.loading(name, directory))

    def loading(self, name: str, directory: Path) -> Steps[None]:
        """`load` in small steps."""
        if name not in self._adapters:
            self.put(name, (yield from adapters.reading(directory, self.dtype, self.device)))

    def put(self, name: str, adapter: Adapter) -> None:
        if (adapter.deltas or adapter.head) and isinstance(self.decoder, Whole):
            raise Unavailable(
                f"models of type {self.model.config.model_type!r} take adapters of kind lora only; set [learner] adapter"
            )
        unknown = [p for p in adapter.loras if f"{p}.weight" not in self.state] + [
            p for p in adapter.deltas if p not in self.state
        ]
        if adapter.head is not None:
            words = len(self.state[f"{self._head}.weight"])
            unknown += [f"token {token}" for token in adapter.head.ids.tolist() if not 0 <= token < words]
        if unknown:
            raise Unavailable(f"adapter {name!r} is for another model: it changes {unknown[0]}, which is not there")
        for path, found, expected in self._shapes(adapter):
            if found != expected:
                raise Unavailable(f"adapter {name!r} is for another model: {path} is {expected} here, not {found}")
        self._adapters[name] = self._seen_through(adapter)

    def _shapes(self, adapter: Adapter) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """(path, shape of what the adapter adds there, shape of what it is added to)."""
        for path, (down, up) in adapter.loras.items():
            weight = self.state[f"{path}.weight"]
            expected = weight.t() if isinstance(self.model.get_submodule(path), Conv1D) else weight
            yield path, (up.shape[0], down.shape[1]), tuple(expected.shape)
        for path, delta in adapter.deltas.items():
            yield path, tuple(delta.shape), tuple(self.state[path].shape)
        if adapter.head is not None:
            ids, rows = adapter.head
            yield "the head", tuple(rows.shape), (len(ids), self.state[f"{self._head}.weight"].shape[1])

    def _seen_through(self, adapter: Adapter) -> Weights:
        if self._packs is None:
            return Weights(self.state, adapter)
        return packed.Packed(self.state, adapter, self._packs)

    def unload(self, name: str) -> None:
        if name != BASE:
            self._adapters.pop(name, None)

    def weights(self, name: str) -> Weights:
        """Raises Unavailable if it is not loaded."""
        if name not in self._adapters:
            raise Unavailable(f"adapter {name!r} is not loaded")
        return self._adapters[name]

    # --- forward ------------------------------------------------------------------------------------------------

    def hidden(
        self, ids: Sequence[int], layout: Layout, past: Past, weights: Weights, watch: Watch | None = None
    ) -> tuple[Tensor, Past]:
        """Hidden states [T, d] of these tokens, after the last norm, and what they add to the past."""
        return self.decoder.hidden(weights, self._tensor(ids), layout.to(self.device), past, watch)

    def prefix(self, ids: Sequence[int], weights: Weights) -> Past:
        """The keys and values of a prompt. With gradients enabled they are part of the graph."""
        if not ids:
            return NO_PAST
        return self.hidden(ids, layouts.rows([len(ids)]), NO_PAST, weights)[1]

    def after(
        self, past: Past, rows: Sequence[Sequence[int]], weights: Weights, watch: Watch | None = None
    ) -> tuple[list[Tensor], Past]:
        """Hidden states [L, d] of each row, all of which follow `past`; and the past of all their tokens."""
        lengths = [len(row) for row in rows]
        hidden, new = self.hidden([i for row in rows for i in row], layouts.rows(lengths, past), past, weights, watch)
        return list(torch.split(hidden, lengths)), new

    def frozen(self, past: Past, rows: Sequence[Sequence[int]], layer: int) -> list[Tensor]:
        """States [T, d] of the base model for these rows: the embeddings, and those at the input of `layer`.

        Where layers cannot be had one by one: the last states alone."""
        layout, weights = layouts.rows([len(row) for row in rows], past).to(self.device), self._adapters[BASE]
        ids = self._tensor([i for row in rows for i in row])
        if not isinstance(self.decoder, Decoder):
            return [torch.cat(self.after(past, rows, weights)[0])]
        states = self.decoder.embed(weights, ids, layout)
        return [states, self.decoder.run(weights, states, layout, past, range(layer))[0]]

    def logits(self, hidden: Tensor, weights: Weights, tokens: Tensor | None = None) -> Tensor:
        """Float logits [N, V] of hidden states [N, d], or only of the given tokens [N, len(tokens)]."""
        weight, bias = weights[f"{self._head}.weight"], weights.find(f"{self._head}.bias")
        if tokens is not None:
            weight, bias = weight[tokens], None if bias is None else bias[tokens]
        out = F.linear(hidden.contiguous(), weight, bias)
        if weights.head is not None:
            out = _with_head(out, hidden, weights.head, tokens)
        out = out.float()
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return cap * torch.tanh(out / cap) if cap else out

    def _tensor(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.long, device=self.device)

    def fingerprint(self, name: str) -> list[float]:
        """Log-probabilities of fixed tokens after fixed texts: equal (up to rounding) if and only if the weights are."""
        return finish(self.fingerprinting(name))

    def fingerprinting(self, name: str) -> Steps[list[float]]:
        """`fingerprint` in small steps, between which decisions can be made."""
        weights, values = self.weights(name), []
        size = len(weights[f"{self._head}.weight"])
        tokens = [token % size for token in PROBE_TOKENS]
        for text in PROBES:
            row = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            last = (yield from self.stepping(row, weights))[0][-1:]
            logits = []
            for start in range(0, size, PART):
                part = torch.arange(start, min(start + PART, size), device=self.device)
                with torch.inference_mode():
                    logits.append(self.logits(last, weights, part))
                yield
            values.extend(torch.cat(logits, -1).log_softmax(-1)[0, tokens].tolist())
        return [round(value, 4) for value in values]

    def stepping(self, ids: Sequence[int], weights: Weights) -> Steps[tuple[Tensor, Past]]:
        """`hidden` of one row without a past, a layer at a time and without gradients."""
        layout = layouts.rows([len(ids)]).to(self.device)
        return (yield from _without_gradients(self.decoder.stepping(weights, self._tensor(ids), layout)))


def _without_gradients(steps: Steps[tuple[Tensor, Past]]) -> Steps[tuple[Tensor, Past]]:
    """Gradients are off within each step only: what runs between them has its own say."""
    while True:
        try:
            with torch.inference_mode():
                next(steps)
        except StopIteration as end:
            done: tuple[Tensor, Past] = end.value
            return done
        yield


def _with_head(out: Tensor, hidden: Tensor, head: adapters.Head, tokens: Tensor | None) -> Tensor:
    """What the output rows in `head` add to logits [N, V] or [N, len(tokens)]."""
    extra = F.linear(hidden, head.rows)
    if tokens is None:
        return out.index_add(1, head.ids, extra)
    place = {token: i for i, token in enumerate(head.ids.tolist())}
    both = [(column, place[token]) for column, token in enumerate(tokens.tolist()) if token in place]
    if not both:
        return out
    columns, rows = (torch.tensor(part, device=out.device) for part in zip(*both, strict=True))
    return out.index_add(1, columns, extra[:, rows])
