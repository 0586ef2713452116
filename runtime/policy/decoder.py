"""Decoder-only language models as one short function over tensors, for training and serving alike.

The modules of transformers give the weights and the shape of the network; the arithmetic is done here: packed rows
instead of padding (`layout`), 2-D matrices throughout, the adapter an argument of every call, any range of layers at a
time. Covered: models built like Llama (SmolLM, Mistral, Qwen 2 and 3, Gemma 1 to 3) and GPT-2. Whether a model really is
built like that is not believed but tried: `Backbone` compares the logits with those of transformers at start.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from runtime.policy.adapter import Adapter, Head, Lora
from runtime.policy.attention import Attention, Heads
from runtime.policy.layout import NO_PAST, KeysValues, Layout, Past
from runtime.policy.steps import Steps, finish

Rotation = tuple[Tensor, Tensor]
Known = Callable[[KeysValues], KeysValues]  # new keys and values -> with those of the past before them
Watch = Callable[[int, Tensor], None]  # told the states [T, d] at the input of every layer, by its number


class Weights:
    """The base model's tensors by path, seen through one adapter."""

    def __init__(self, base: Mapping[str, Tensor], adapter: Adapter, dropout: float = 0.0) -> None:
        self._base = base
        self._loras = adapter.loras
        moved = {id(base[path]): _plus(base[path], delta) for path, delta in adapter.deltas.items()}
        # by tensor, not by path: a tied one (embeddings and output) changes under both its names
        self._changed = {path: moved[id(tensor)] for path, tensor in base.items() if id(tensor) in moved}
        self._dropout = dropout
        self.head: Head | None = adapter.head
        changed = (layer_of(path) or 0 for path in (*self._loras, *self._changed))  # embeddings come before layer 0
        self.lowest = min(changed, default=sys.maxsize)  # layer that differs from the base model

    def __getitem__(self, path: str) -> Tensor:
        return self._changed.get(path, self._base[path])

    def find(self, path: str) -> Tensor | None:
        return self[path] if path in self._base else None

    def linear(self, x: Tensor, path: str, transposed: bool = False) -> Tensor:
        """x [T, in] -> [T, out]. `transposed`: the weight is stored as [in, out] (GPT-2)."""
        weight = self[f"{path}.weight"]
        y = F.linear(x, weight.t() if transposed else weight, self.find(f"{path}.bias"))
        return self.added(y, x, path)

    def joined(self, x: Tensor, paths: tuple[str, ...], transposed: bool = False) -> tuple[Tensor, ...]:
        """Several linear layers of one input."""
        return tuple(self.linear(x, path, transposed) for path in paths)

    def added(self, y: Tensor, x: Tensor, path: str) -> Tensor:
        """y [..., out] of a linear layer with what LoRA adds to it for x [..., in]."""
        lora: Lora | None = self._loras.get(path)
        if lora is None:
            return y
        if self._dropout:
            x = F.dropout(x, self._dropout)
        if y.dim() == 2:
            return torch.addmm(y, x @ lora.down.t(), lora.up.t())
        return y + x @ lora.down.t() @ lora.up.t()


@dataclass(frozen=True)
class Projections:
    """Paths of an attention's matrices and how its heads are made. `inputs` are those of q, k and v, or one for all."""

    inputs: tuple[str, ...]
    out: str
    heads: Heads
    q_norm: str = ""
    k_norm: str = ""
    kind: str = ""  # which rotation, where layers differ in it


@dataclass(frozen=True)
class Block:
    """One layer: norms before (and in Gemma 2 and 3 after) attention and perceptron. `ups`: gate and up, or up alone."""

    attention: Projections
    before_attention: str
    after_attention: str
    before_mlp: str
    after_mlp: str
    ups: tuple[str, ...]
    down: str
    act: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Norm:
    kind: str  # "layer" | "rms" | "rms+1"
    eps: float


class Decoder:
    """The network without its weights: every call gets them."""

    def __init__(self, model: Any) -> None:
        """Raises AttributeError or KeyError where the model is not built as expected."""
        self._stack: Any = model.base_model
        self._names = {id(module): name for name, module in model.named_modules()}
        gpt2 = hasattr(self._stack, "wte")
        self._transposed = gpt2
        self.embedding = self._path(self._stack.wte if gpt2 else self._stack.embed_tokens)
        self._positions = self._path(self._stack.wpe) if gpt2 else ""
        self._last = self._path(self._stack.ln_f if gpt2 else self._stack.norm)
        self._embed_scale = _embed_scale(model)
        layers = self._stack.h if gpt2 else self._stack.layers
        self._norms = {self._path(m): _norm(m) for m in model.modules() if "Norm" in type(m).__name__}
        self.blocks: tuple[Block, ...] = tuple((self._gpt2 if gpt2 else self._llama)(layer) for layer in layers)
        self._rotary: Any = None if gpt2 else self._stack.rotary_emb
        self._by_kind = self._rotary is not None and "layer_type" in inspect.signature(self._rotary.forward).parameters

    def _path(self, module: nn.Module) -> str:
        name: str = self._names[id(module)]
        return name

    def _optional(self, layer: Any, name: str) -> str:
        return self._path(getattr(layer, name)) if hasattr(layer, name) else ""

    def _llama(self, layer: Any) -> Block:
        attention, mlp, config = layer.self_attn, layer.mlp, self._stack.config
        size = attention.head_dim
        heads = Heads(
            attention.q_proj.out_features // size, attention.k_proj.out_features // size, size, float(attention.scaling),
            softcap=getattr(attention, "attn_logit_softcapping", None), window=_window(attention, config),
        )  # fmt: skip
        attended = Projections(
            inputs=(self._path(attention.q_proj), self._path(attention.k_proj), self._path(attention.v_proj)),
            out=self._path(attention.o_proj), heads=heads,
            q_norm=self._optional(attention, "q_norm"), k_norm=self._optional(attention, "k_norm"),
            kind=getattr(attention, "layer_type", None) or "",
        )  # fmt: skip
        sandwich = hasattr(layer, "pre_feedforward_layernorm")
        return Block(
            attention=attended,
            before_attention=self._path(layer.input_layernorm),
            after_attention=self._path(layer.post_attention_layernorm) if sandwich else "",
            before_mlp=self._path(layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm),
            after_mlp=self._path(layer.post_feedforward_layernorm) if sandwich else "",
            ups=(self._path(mlp.gate_proj), self._path(mlp.up_proj)), down=self._path(mlp.down_proj), act=mlp.act_fn,
        )  # fmt: skip

    def _gpt2(self, layer: Any) -> Block:
        attention, mlp = layer.attn, layer.mlp
        heads = Heads(attention.num_heads, attention.num_heads, attention.head_dim, float(attention.scaling))
        attended = Projections((self._path(attention.c_attn),), self._path(attention.c_proj), heads)
        return Block(
            attention=attended, before_attention=self._path(layer.ln_1), after_attention="",
            before_mlp=self._path(layer.ln_2), after_mlp="",
            ups=(self._path(mlp.c_fc),), down=self._path(mlp.c_proj), act=mlp.act,
        )  # fmt: skip

    # --- arithmetic ---------------------------------------------------------------------------------------------

    def embed(self, weights: Weights, ids: Tensor, layout: Layout) -> Tensor:
        """Token ids [T] -> states [T, d] at the input of layer 0."""
        states = F.embedding(ids, weights[f"{self.embedding}.weight"])
        if self._embed_scale is not None:
            states = states * self._embed_scale.to(states.dtype)
        if self._positions:
            states = states + F.embedding(layout.positions, weights[f"{self._positions}.weight"])
        return states

    def hidden(
        self, weights: Weights, ids: Tensor, layout: Layout, past: Past, watch: Watch | None = None
    ) -> tuple[Tensor, Past]:
        """Hidden states [T, d] after the last norm, and what these tokens add to the past."""
        states, new = self.run(weights, self.embed(weights, ids, layout), layout, past, watch=watch)
        return self.finish(weights, states), new

    def stepping(self, weights: Weights, ids: Tensor, layout: Layout) -> Steps[tuple[Tensor, Past]]:
        """`hidden` without a past, a layer at a time."""
        states, new = yield from self.steps(weights, self.embed(weights, ids, layout), layout, NO_PAST)
        return self.finish(weights, states), new

    def run(
        self, weights: Weights, states: Tensor, layout: Layout, past: Past, layers: range | None = None,
        watch: Watch | None = None,
    ) -> tuple[Tensor, Past]:  # fmt: skip
        """States [T, d] through the layers; also what these tokens add to the past."""
        return finish(self.steps(weights, states, layout, past, layers, watch))

    def steps(
        self, weights: Weights, states: Tensor, layout: Layout, past: Past, layers: range | None = None,
        watch: Watch | None = None,
    ) -> Steps[tuple[Tensor, Past]]:  # fmt: skip
        """`run`, one layer at a time. Layers that `past` does not hold see the new tokens only."""
        chosen = range(len(self.blocks)) if layers is None else layers
        attention = Attention(layout, states.dtype)
        rotations: dict[str, Rotation | None] = {}
        made = []
        for index in chosen:
            if watch is not None:
                watch(index, states)
            block = self.blocks[index]
            kind = block.attention.kind
            if kind not in rotations:
                rotations[kind] = self._rotation(states, layout, kind)
            states, kv = self._block(weights, block, states, attention, rotations[kind], partial(past.layer, index))
            made.append(kv)
            yield
        return states, Past(layout.positions, tuple(made))

    def finish(self, weights: Weights, states: Tensor) -> Tensor:
        """The last norm."""
        return self._normed(weights, states, self._last)

    def _rotation(self, states: Tensor, layout: Layout, kind: str) -> Rotation | None:
        if self._rotary is None:
            return None
        arguments = (kind,) if self._by_kind else ()
        cos, sin = self._rotary(states, layout.positions[None], *arguments)
        half = sin.shape[-1] // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], -1)  # so that turning is a roll and a product
        return cos[0, :, None], signed[0, :, None]

    def _block(
        self, weights: Weights, block: Block, x: Tensor, attention: Attention, rotation: Rotation | None,
        known: Known,
    ) -> tuple[Tensor, KeysValues]:  # fmt: skip
        y, kv = self._attend(
            weights, block.attention, self._normed(weights, x, block.before_attention), attention, rotation, known
        )
        x = x + self._normed(weights, y, block.after_attention)
        y = self._mlp(weights, block, self._normed(weights, x, block.before_mlp))
        return x + self._normed(weights, y, block.after_mlp), kv

    def _mlp(self, weights: Weights, block: Block, x: Tensor) -> Tensor:
        made = weights.joined(x, block.ups, self._transposed)
        y = block.act(made[0])
        return weights.linear(y * made[1] if len(made) == 2 else y, block.down, self._transposed)

    def _attend(
        self, weights: Weights, a: Projections, x: Tensor, attention: Attention, rotation: Rotation | None,
        known: Known,
    ) -> tuple[Tensor, KeysValues]:  # fmt: skip
        made = weights.joined(x, a.inputs, self._transposed)
        q, k, v = made if len(made) == 3 else made[0].chunk(3, -1)
        count, heads = len(x), a.heads
        q = q.reshape(count, heads.heads, heads.size)
        k, v = k.reshape(count, heads.kv_heads, heads.size), v.reshape(count, heads.kv_heads, heads.size)
        q, k = self._normed(weights, q, a.q_norm), self._normed(weights, k, a.k_norm)
        if rotation is not None:
            q, k = torch.split(_rotate(torch.cat([q, k], 1), rotation), [heads.heads, heads.kv_heads], 1)
        k, v = k.transpose(0, 1), v.transpose(0, 1)  # [kv heads, T, size]
        return weights.linear(attention(q, *known((k, v)), heads), a.out, self._transposed), (k, v)

    def _normed(self, weights: Weights, x: Tensor, path: str) -> Tensor:
        if not path:
            return x
        norm, weight = self._norms[path], weights[f"{path}.weight"]
        if norm.kind == "layer":
            return F.layer_norm(x, (x.shape[-1],), weight, weights.find(f"{path}.bias"), norm.eps)
        if norm.kind == "rms":
            return F.rms_norm(x, (x.shape[-1],), weight, norm.eps)
        return F.rms_norm(x.float(), (x.shape[-1],), 1.0 + weight.float(), norm.eps).to(x.dtype)


def _plus(tensor: Tensor, delta: Tensor) -> Tensor:
    """Added in float32, so that small changes to bfloat16 weights are rounded once."""
    return (tensor.float() + delta.float()).to(tensor.dtype)


def _rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary positions (arXiv 2104.09864), halves convention of transformers; x [T, heads, size]; the sine is signed."""
    cos, sin = rotation
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


def _norm(module: Any) -> Norm:
    if isinstance(module, nn.LayerNorm):
        return Norm("layer", module.eps)
    eps = module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps
    return Norm("rms+1" if "Gemma" in type(module).__name__ else "rms", float(eps))


def _window(attention: Any, config: Any) -> int | None:
    if hasattr(attention, "sliding_window"):
        window: int | None = attention.sliding_window
        return window
    return config.sliding_window if config.model_type == "mistral" else None


def _embed_scale(model: Any) -> Tensor | None:
    """Gemma multiplies its embeddings."""
    if not model.config.model_type.startswith("gemma"):
        return None
    return torch.tensor(model.config.get_text_config().hidden_size ** 0.5)


def layer_of(path: str) -> int | None:
    """The number of the layer that a module or parameter belongs to."""
    return next((int(part) for part in path.split(".") if part.isdigit()), None)


def trained_paths(model: Any, layers: Sequence[int], targets: Sequence[str]) -> list[str]:
    """The linear layers of these layers, or those of them with one of these names (`q_proj`), in the model's order."""
    found = []
    for path, module in model.named_modules():
        wanted = not targets or path.split(".")[-1] in targets
        if wanted and layer_of(path) in layers and isinstance(module, nn.Linear | Conv1D):
            found.append(path)
    return found
