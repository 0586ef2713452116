"""What a run trains, by kind: LoRA factors, whole parameters of the top layers, or output rows. In float32; the model
computes with copies in its own type."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runtime.config import LearnerConfig
from runtime.errors import BadConfig, Corrupt
from runtime.learning import penalties, pruning
from runtime.policy import adapter as adapters
from runtime.policy.adapter import Adapter, Head, Lora
from runtime.policy.backbone import Backbone
from runtime.policy.decoder import layer_of, trained_paths
from runtime.policy.encoder import Encoder


class Candidate(ABC):
    """An adapter under training."""

    cut: int  # the lowest layer that changes

    @property
    @abstractmethod
    def parameters(self) -> list[nn.Parameter]:
        """What the optimiser moves, float32."""

    @abstractmethod
    def adapter(self) -> Adapter:
        """The adapter as it stands, in the graph where gradients are enabled."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the files that serving reads."""

    @abstractmethod
    def size(self, norm: penalties.Norm) -> Tensor:
        """L1 or squared L2 norm of what is added to the model."""

    def prune(self, energy: float) -> None:
        """Drop what adds less than a share `1 - energy` of the update, where the kind has something to drop."""

    @abstractmethod
    def start(self, directory: Path) -> None:
        """Begin where another adapter of the same kind and shape ended."""


class LoraCandidate(Candidate):
    """Factors A [r, in] (random) and B [out, r] (zero) at every target (arXiv 2106.09685)."""

    def __init__(self, backbone: Backbone, settings: LearnerConfig, layers: Sequence[int], base: str) -> None:
        self._backbone, self._settings, self._layers, self._base = backbone, settings, layers, base
        self.cut = min(layers)
        paths = trained_paths(backbone.model, layers, settings.targets)
        missing = set(settings.targets) - {path.split(".")[-1] for path in paths}
        if missing:
            raise BadConfig(f"[learner] targets: the model has no module {sorted(missing)[0]!r}")
        self._rank, self._scale = settings.rank, settings.alpha / settings.rank
        self._factors = {path: self._fresh(path) for path in paths}

    def _fresh(self, path: str) -> tuple[nn.Parameter, nn.Parameter]:
        inputs, outputs = self._shape(path)
        a = torch.empty(self._settings.rank, inputs)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        device = self._backbone.device
        return nn.Parameter(a.to(device)), nn.Parameter(torch.zeros(outputs, self._settings.rank, device=device))

    def _shape(self, path: str) -> tuple[int, int]:
        module = self._backbone.model.get_submodule(path)
        rows, columns = module.weight.shape
        return (columns, rows) if isinstance(module, nn.Linear) else (rows, columns)  # GPT-2 stores [in, out]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for factors in self._factors.values() for parameter in factors]

    def adapter(self) -> Adapter:
        dtype = self._backbone.dtype
        return Adapter({path: Lora(a.to(dtype), (b * self._scale).to(dtype)) for path, (a, b) in self._factors.items()})

    def save(self, directory: Path) -> None:
        adapters.write_lora(directory, self._factors, self._config())

    def prune(self, energy: float) -> None:
        """The least rank that keeps this share of every product's squared singular values."""
        cut = {path: pruning.truncate(a.detach(), b.detach(), energy) for path, (a, b) in self._factors.items()}
        self._rank = max(len(a) for a, _ in cut.values())
        padded = {path: pruning.padded(a, b, self._rank) for path, (a, b) in cut.items()}
        self._factors = {path: (nn.Parameter(a), nn.Parameter(b)) for path, (a, b) in padded.items()}

    def _config(self) -> Any:
        from peft import LoraConfig

        settings = self._settings
        task = "FEATURE_EXTRACTION" if isinstance(self._backbone, Encoder) else "CAUSAL_LM"
        return LoraConfig(
            r=self._rank, lora_alpha=self._scale * self._rank, lora_dropout=settings.dropout, task_type=task,
            target_modules=sorted({path.split(".")[-1] for path in self._factors}), layers_to_transform=list(self._layers),
            base_model_name_or_path=self._base, fan_in_fan_out=self._backbone.model.config.model_type == "gpt2",
        )  # fmt: skip

    def size(self, norm: penalties.Norm) -> Tensor:
        return torch.stack([norm.of_product(a, b, self._scale) for a, b in self._factors.values()]).sum()

    @torch.no_grad()
    def start(self, directory: Path) -> None:
        found = adapters.read(directory, torch.float32, self._backbone.device).loras
        for path, (a, b) in self._factors.items():
            other = found.get(path)
            if other is None:
                continue
            if other.down.shape[0] > a.shape[0] or other.down.shape[1] != a.shape[1] or other.up.shape[0] != b.shape[0]:
                raise BadConfig(
                    f"[learner] start: {directory} has another shape at {path}; use a rank of at least {other.down.shape[0]}"
                )
            a[: len(other.down)], b[:, : len(other.down)] = other.down, other.up / self._scale
        if not found.keys() & self._factors.keys():
            raise BadConfig(f"[learner] start: {directory} changes none of the layers that are trained")


class DeltaCandidate(Candidate):
    """What is added to every parameter of some layers; with all layers also to embeddings, output and the last norm."""

    def __init__(self, backbone: Backbone, layers: Sequence[int]) -> None:
        self._backbone = backbone
        whole = len(layers) == backbone.layers
        self.cut = 0 if whole else min(layers)
        self._deltas = {
            path: nn.Parameter(torch.zeros(parameter.shape, device=parameter.device))
            for path, parameter in backbone.model.named_parameters()
            if whole or layer_of(path) in layers
        }

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self._deltas.values())

    def adapter(self) -> Adapter:
        return Adapter(deltas=dict(self._deltas))

    def save(self, directory: Path) -> None:
        adapters.write_delta(directory, {path: delta.to(self._backbone.dtype) for path, delta in self._deltas.items()})

    def size(self, norm: penalties.Norm) -> Tensor:
        return torch.stack([norm.of(delta) for delta in self._deltas.values()]).sum()

    @torch.no_grad()
    def start(self, directory: Path) -> None:
        found = adapters.read(directory, torch.float32, self._backbone.device).deltas
        _same_paths(directory, set(found), set(self._deltas))
        for path, delta in self._deltas.items():
            delta.copy_(found[path])


class HeadCandidate(Candidate):
    """Own output rows for the tokens in use; the layers stay as they are."""

    def __init__(self, backbone: Backbone, tokens: Sequence[int]) -> None:
        self._backbone = backbone
        self.cut = backbone.layers
        self._ids = torch.tensor(sorted(set(tokens)), device=backbone.device)
        width = backbone.model.get_output_embeddings().weight.shape[1]
        self._rows = nn.Parameter(torch.zeros(len(self._ids), width, device=backbone.device))

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [self._rows]

    def adapter(self) -> Adapter:
        return Adapter(head=Head(self._ids, self._rows.to(self._backbone.dtype)))

    def save(self, directory: Path) -> None:
        adapters.write_head(directory, self._ids, self._rows)

    def size(self, norm: penalties.Norm) -> Tensor:
        return norm.of(self._rows)

    @torch.no_grad()
    def start(self, directory: Path) -> None:
        head = adapters.read(directory, torch.float32, self._backbone.device).head
        if head is None:
            raise Corrupt(f"[learner] start: {directory} holds no output rows")
        place = {int(token): i for i, token in enumerate(head.ids)}
        for i, token in enumerate(self._ids.tolist()):
            if token in place:
                self._rows[i] = head.rows[place[token]]


def make(backbone: Backbone, settings: LearnerConfig, tokens: Sequence[int], base: str) -> Candidate:
    """`tokens`: those whose output rows `head_only` may change."""
    layers = which_layers(settings.layers, backbone.layers)
    if isinstance(backbone, Encoder) and settings.adapter != "lora":
        kind = backbone.model.config.model_type
        raise BadConfig(f'[learner] adapter: models of type {kind!r} take no {settings.adapter}; set adapter = "lora"')
    if settings.adapter == "full_delta":
        return DeltaCandidate(backbone, layers)
    if settings.adapter == "head_only":
        return HeadCandidate(backbone, tokens)
    return LoraCandidate(backbone, settings, layers, base)


def which_layers(wanted: str, count: int) -> list[int]:
    """`top:15` of 30 layers -> 15..29; more than there are means all."""
    if wanted == "all":
        return list(range(count))
    return list(range(max(0, count - int(wanted.removeprefix("top:"))), count))


def _same_paths(directory: Path, found: set[str], wanted: set[str]) -> None:
    if found != wanted:
        raise BadConfig(f"[learner] start: {directory} changes other layers than are trained; use the same layers")
