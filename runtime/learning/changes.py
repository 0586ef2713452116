"""Two versions of the weights -> how far each module moved, in how many directions, and how alike the two are.

A LoRA update B A is never formed, for it is as large as the layer; with thin factors

    |B A|^2      = tr((B'B)(A A'))                  its length, by the Frobenius norm
    <B1A1, B2A2> = tr((B1'B2)(A2 A1'))              from which the cosine of two versions follows
    sigma(B A)   = sigma(R_B R_A')                  of the thin QRs of B and A'
    rank         = exp(-sum p log p), p = sigma / sum sigma    the effective rank (Roy and Vetterli 2007)

Runs on numpy alone, so that the daemon can, in a thread.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import Corrupt
from runtime.learning.tensors import Array, File

CONFIG, FACTORS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
DELTA, HEAD = "delta.safetensors", "head.safetensors"
WRAPPER, DOWN, UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
LAYER = re.compile(r"(?:^|\.)(\d+)\.(.+)$")
LARGEST = 1024  # of a whole update's smaller side: beyond, its singular values take too long


@dataclass(frozen=True)
class Factors:
    """B A: `down` [r, in], `up` [out, r] with the scale in it."""

    down: Array
    up: Array

    def dot(self, other: Factors) -> float:
        return float(np.sum((self.up.T @ other.up) * (self.down @ other.down.T)))

    def singular(self) -> Array | None:
        left, right = np.linalg.qr(self.up), np.linalg.qr(self.down.T)
        return np.linalg.svd(left.R @ right.R.T, compute_uv=False)


@dataclass(frozen=True)
class Whole:
    """What is added to a whole parameter."""

    delta: Array

    def dot(self, other: Whole) -> float:
        return float(np.vdot(self.delta, other.delta))

    def singular(self) -> Array | None:
        if self.delta.ndim != 2 or min(self.delta.shape) > LARGEST:
            return None
        small = self.delta if self.delta.shape[0] <= self.delta.shape[1] else self.delta.T
        return np.sqrt(np.maximum(np.linalg.eigvalsh(small @ small.T), 0.0))


@dataclass(frozen=True)
class Rows:
    """What is added to some output rows: `rows` [n, d] of the tokens `ids` [n]."""

    ids: Array
    rows: Array

    def dot(self, other: Rows) -> float:
        _, mine, theirs = np.intersect1d(self.ids, other.ids, return_indices=True)
        return float(np.vdot(self.rows[mine], other.rows[theirs]))

    def singular(self) -> Array | None:
        return Whole(self.rows).singular()


@dataclass(frozen=True)
class Module:
    """How one module of the newer version stands to the base model, and to the version before."""

    layer: int | None  # None: outside of the layers (embeddings, output)
    module: str
    norm: float  # of what is added to the base weights
    before: float  # the same of the version before
    moved: float  # norm of the difference of the two updates
    base: float | None  # norm of the base weights
    rank: float | None  # in how many directions, about
    similarity: float | None  # cosine of the two updates, in [-1, 1]

    @property
    def share(self) -> float | None:
        """How far it moved since the version before, over the size of the base weights."""
        return self.moved / self.base if self.base else None


def read(directory: Path) -> dict[str, Any]:
    """The updates of an adapter by path. Raises Corrupt if its files cannot be used."""
    try:
        if (directory / CONFIG).is_file():
            return _factors(directory)
        if (directory / HEAD).is_file():
            file = File(directory / HEAD)
            return {"lm_head": Rows(file.read("ids"), file.read("rows"))}
        file = File(directory / DELTA)
        return {_module(name): Whole(file.read(name)) for name in file}
    except (OSError, ValueError, KeyError) as error:
        raise Corrupt(f"the adapter in {directory} cannot be read: {error}") from None


def _factors(directory: Path) -> dict[str, Any]:
    config, file = json.loads((directory / CONFIG).read_text(encoding="utf-8")), File(directory / FACTORS)
    scale = np.float32(config["lora_alpha"] / config["r"])
    return {
        name.removeprefix(WRAPPER).removesuffix(DOWN): Factors(
            file.read(name), file.read(name.replace(DOWN, UP)) * scale
        )
        for name in file
        if name.endswith(DOWN)
    }


def _module(parameter: str) -> str:
    return parameter.removesuffix(".weight")


def base_norms(directory: Path, paths: Mapping[str, Any]) -> dict[str, float]:
    """Norm of the base weights of these modules; those that the files do not name are left out."""
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        file = File(path)
        for name in file:
            if _module(name) in paths:
                found[_module(name)] = float(np.linalg.norm(file.read(name)))
    return found


def compare(newer: Mapping[str, Any], older: Mapping[str, Any], norms: Mapping[str, float]) -> list[Module]:
    """Every module that either changes, by layer. `older` is empty for the base model."""
    return sorted(
        (_compared(path, newer.get(path), older.get(path), norms.get(path)) for path in newer.keys() | older.keys()),
        key=lambda m: (math.inf if m.layer is None else m.layer, m.module),
    )


def _compared(path: str, newer: Any, older: Any, base: float | None) -> Module:
    found = LAYER.search(path)
    norm, before = (_norm(update) for update in (newer, older))
    inner = newer.dot(older) if newer is not None and type(newer) is type(older) else 0.0
    singular = newer.singular() if newer is not None else None
    return Module(
        layer=int(found[1]) if found else None,
        module=found[2] if found else path,
        norm=norm,
        before=before,
        moved=math.sqrt(max(norm**2 + before**2 - 2 * inner, 0.0)),
        base=base,
        rank=effective_rank(singular) if singular is not None else None,
        similarity=inner / (norm * before) if norm and before and type(newer) is type(older) else None,
    )


def _norm(update: Any) -> float:
    return math.sqrt(max(update.dot(update), 0.0)) if update is not None else 0.0


def effective_rank(singular: Array) -> float:
    """exp of the entropy of the normalised singular values; 0 for no update at all."""
    total = float(singular.sum())
    if total <= 0:
        return 0.0
    p = singular[singular > 0] / total
    return float(np.exp(-(p * np.log(p)).sum()))


def summary(modules: Sequence[Module]) -> dict[str, float | None]:
    """The whole version: norms of all modules together, the cosine of the two whole updates, the mean of the ranks."""
    norm, before, moved = (_length([getattr(m, name) for m in modules]) for name in ("norm", "before", "moved"))
    base = _length([m.base for m in modules if m.base]) if all(m.base for m in modules) else 0.0
    ranks = [m.rank for m in modules if m.rank]
    alike = norm and before and all(m.similarity is not None for m in modules if m.norm and m.before)
    return {
        "norm": norm,
        "moved": moved,
        "share": moved / base if base else None,
        "rank": sum(ranks) / len(ranks) if ranks else None,
        "similarity": (norm**2 + before**2 - moved**2) / (2 * norm * before) if alike else None,
    }


def _length(parts: Sequence[float]) -> float:
    return math.sqrt(sum(part**2 for part in parts))
