"""An adapter as plain tensors over the base model, and its files: LoRA in PEFT's format, the other kinds in our own.

lora        two thin factors a linear layer      adapter_model.safetensors + adapter_config.json (PEFT)
full_delta  what is added to whole parameters    delta.safetensors + delta.json
head_only   what is added to some output rows    head.safetensors + delta.json

Paths are those of the Hugging Face model (`model.layers.3.self_attn.q_proj`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from runtime.errors import Corrupt
from runtime.policy.steps import Steps, finish

# what an adapter's directory may hold besides its manifest
LORA_CONFIG, LORA_FILE = "adapter_config.json", "adapter_model.safetensors"
DELTA_CONFIG, DELTA_FILE, HEAD_FILE = "delta.json", "delta.safetensors", "head.safetensors"
WRAPPER = "base_model.model."  # what PEFT puts before a path


class Lora(NamedTuple):
    """y += up(down(x)): down [r, in], up [out, r] with the scale in it."""

    down: Tensor
    up: Tensor


class Head(NamedTuple):
    """`rows` [n, d] is added to the output weights of the tokens `ids` [n]."""

    ids: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Adapter:
    """What differs from the base model. Empty = the base model."""

    loras: Mapping[str, Lora] = field(default_factory=dict)  # by path of the linear layer
    deltas: Mapping[str, Tensor] = field(default_factory=dict)  # by path of the parameter
    head: Head | None = None


def write_lora(directory: Path, factors: Mapping[str, tuple[Tensor, Tensor]], config: Any) -> None:
    """`factors`: path -> (A [r, in], B [out, r]) without the scale; `config`: the `peft.LoraConfig` they belong to."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for path, (a, b) in factors.items():
        tensors[f"{WRAPPER}{path}.lora_A.weight"] = a.detach().contiguous().cpu()
        tensors[f"{WRAPPER}{path}.lora_B.weight"] = b.detach().contiguous().cpu()
    save_file(tensors, directory / LORA_FILE, metadata={"format": "pt"})
    config.inference_mode = True
    config.save_pretrained(directory)


def write_delta(directory: Path, deltas: Mapping[str, Tensor]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    save_file({path: delta.detach().contiguous().cpu() for path, delta in deltas.items()}, directory / DELTA_FILE)
    (directory / DELTA_CONFIG).write_text(json.dumps({"kind": "full_delta"}))


def write_head(directory: Path, ids: Tensor, rows: Tensor) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    save_file({"ids": ids.cpu(), "rows": rows.detach().contiguous().cpu()}, directory / HEAD_FILE)
    (directory / DELTA_CONFIG).write_text(json.dumps({"kind": "head_only"}))


def read(directory: Path, dtype: torch.dtype, device: torch.device) -> Adapter:
    """Any kind, ready to serve in `dtype`. Raises Corrupt saying what is wrong with which file."""
    return finish(reading(directory, dtype, device))


def reading(directory: Path, dtype: torch.dtype, device: torch.device) -> Steps[Adapter]:
    """`read`, a tensor at a time."""
    try:
        if (directory / LORA_CONFIG).exists():
            return Adapter(loras=(yield from _read_lora(directory, dtype, device)))
        kind = _config(directory / DELTA_CONFIG)["kind"]
        found = {}
        with safe_open(directory / (HEAD_FILE if kind == "head_only" else DELTA_FILE), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                found[name] = file.get_tensor(name).to(device)
                yield
        if kind == "head_only":
            if found["ids"].dtype != torch.int64 or found["ids"].dim() != 1:
                raise ValueError("the tokens of its head are no list of whole numbers")
            return Adapter(head=Head(found["ids"], found["rows"].to(dtype)))
        return Adapter(deltas={path: tensor.to(dtype) for path, tensor in found.items()})
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise Corrupt(f"the adapter in {directory} cannot be read: {error}") from None


def _read_lora(directory: Path, dtype: torch.dtype, device: torch.device) -> Steps[dict[str, Lora]]:
    config = _config(directory / LORA_CONFIG)
    if config.get("use_rslora") or config.get("use_dora") or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise ValueError("only plain LoRA is served (no rsLoRA, DoRA or rank patterns)")
    rank, scale, loras = config["r"], _scale(config), {}
    with safe_open(directory / LORA_FILE, framework="pt") as file:
        names = set(file.keys())
        for name in sorted(names):
            if not name.endswith(".lora_A.weight"):
                continue
            other = name.replace(".lora_A.", ".lora_B.")
            down, up = file.get_tensor(name), file.get_tensor(other) * scale
            if not (down.dim() == up.dim() == 2 and len(down) == up.shape[1] == rank):
                raise ValueError(f"{name} and its partner are no factors of rank {rank}")
            path = name.removeprefix(WRAPPER).removesuffix(".lora_A.weight")
            loras[path] = Lora(down.to(device, dtype), up.to(device, dtype))
            yield
    if len(loras) * 2 != len(names):
        raise ValueError("it has tensors that are no LoRA factors")
    return loras


def _config(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} is no JSON object")
    return found


def _scale(config: Mapping[str, Any]) -> float:
    """alpha / r. Raises ValueError where that is no sensible number."""
    alpha, rank = config["lora_alpha"], config["r"]
    if type(rank) is not int or not 0 < rank < 1 << 16 or type(alpha) not in (int, float) or not abs(alpha) < 1 << 32:
        raise ValueError(f"rank {str(rank)[:20]!r} and alpha {str(alpha)[:20]!r} are no numbers a LoRA has")
    return float(alpha / rank)
