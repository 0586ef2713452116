"""Before anything is learnt, by hand: a copy of a base model in which the smallest weights of the linear layers are zero.

What reads the model sees the same format (safetensors and JSON); embeddings, output rows and norms stay as they are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.prune import L1Unstructured
from transformers import AutoConfig, AutoModelForCausalLM

from runtime.errors import BadConfig, Unavailable
from runtime.policy.decoder import trained_paths

# weights that are not read, so that neither code nor the unpruned ones come along
OTHERS = shutil.ignore_patterns(
    "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.onnx", "*.gguf"
)


def magnitude(state: Mapping[str, Tensor], share: float, names: Collection[str]) -> dict[str, Tensor]:
    """The same tensors, with the `share` of the entries of each of these matrices that are nearest to zero set to it."""
    smallest = L1Unstructured(amount=float(share))
    return {
        name: smallest.prune(tensor) if name in names and tensor.dim() == 2 else tensor  # type: ignore[no-untyped-call]
        for name, tensor in state.items()
    }


def prune_base(source: Path, target: Path, share: float) -> float:
    """Write the pruned copy of a model's directory, all or nothing. Returns the share of its weights that are zero. Raises
    BadConfig or Unavailable."""
    if not 0 <= share < 1:
        raise BadConfig(f"cannot prune a share of {share:g}; give a number from 0 to below 1, such as 0.3")
    if target.exists():
        raise BadConfig(f"{target} exists already; name a directory that does not")
    if target.resolve().is_relative_to(source.resolve()):
        raise BadConfig(f"{target} lies inside {source}; name a directory outside it")
    shards, names = _shards(source), _linear(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / "model"
        shutil.copytree(source, made, ignore=OTHERS)
        counts = [_prune_shard(shard, made / shard.name, share, names) for shard in shards]
        try:
            made.rename(target)
        except OSError:
            raise Unavailable(f"{target} cannot be written, or was made by another just now; try again") from None
    return sum(zeros for zeros, _ in counts) / max(1, sum(count for _, count in counts))


def _shards(source: Path) -> list[Path]:
    found = sorted(source.glob("*.safetensors"))
    if not (source / "config.json").is_file() or not found:
        raise Unavailable(
            f"{source} has no config.json or no *.safetensors file; give a directory in Hugging Face format"
        )
    return found


def _linear(source: Path) -> set[str]:
    """Names of the weights of all linear layers, as files name them: with the prefix of the model's body or without."""
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source, local_files_only=True))
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise BadConfig(f"{source / 'config.json'} is of no language model that can be loaded: {reason}") from None
    layers = range(model.config.get_text_config().num_hidden_layers)
    names = {f"{path}.weight" for path in trained_paths(model, layers, ())}
    return names | {name.removeprefix(f"{model.base_model_prefix}.") for name in names}


def _prune_shard(source: Path, target: Path, share: float, names: Collection[str]) -> tuple[int, int]:
    """(zeros, numbers) of the file that is written."""
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError) as error:
        raise Unavailable(f"{source} cannot be read: {error}; fetch the model again") from None
    pruned = magnitude(state, share, names)
    save_file(pruned, target, metadata)
    return sum(int((t == 0).sum()) for t in pruned.values()), sum(t.numel() for t in pruned.values())
