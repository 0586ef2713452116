"""Frozen hidden states by (prompt, row), kept over epochs and, with a directory, over cycles and restarts.

On disk: `GENERATION/DIGEST.safetensors`, a generation for each (base revision, cut, dtype, prompt). A file is named by the
hash of its content, written whole or not at all, and mapped, not read. What was not used for longest goes first. A file
that is not what its name says is thrown away: everything here can be computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

Row = tuple[int, ...]
CHUNK = 1 << 22  # bytes


class States:
    """`States()` keeps in memory only."""

    def __init__(self, directory: Path | None = None, model: str = "", limit: int = 1 << 29) -> None:
        """`model` names what the states hang on besides prompt and row; `limit` is in bytes on disk."""
        self._directory, self._model, self._limit = directory, model, limit
        self._kept: dict[tuple[Row, Row], Tensor] = {}
        self._mapped: dict[Row, dict[str, Tensor]] = {}  # prompt -> digest of a row -> states
        self._new: dict[Row, dict[Row, Tensor]] = {}
        self._passing: list[tuple[Row, Row]] = []

    def get(self, prefix: Row, row: Row) -> Tensor:
        """States [L, d]. Raises KeyError if they were never put."""
        found = self._kept.get((prefix, row))
        return found if found is not None else self._stored(prefix)[_digest(row)]

    def missing(self, prefix: Row, rows: Sequence[Row]) -> list[Row]:
        stored = self._stored(prefix)
        return [row for row in rows if (prefix, row) not in self._kept and _digest(row) not in stored]

    def put(self, prefix: Row, states: Mapping[Row, Tensor], *, passing: bool = False) -> None:
        """`passing`: until the next `let_go`, and never on disk."""
        for row, tensor in states.items():
            self._kept[prefix, row] = tensor.detach().cpu().clone()
            if passing:
                self._passing.append((prefix, row))
            else:
                self._new.setdefault(prefix, {})[row] = self._kept[prefix, row]

    def let_go(self) -> None:
        """Drop what is `passing`."""
        for key in self._passing:
            del self._kept[key]
        self._passing.clear()

    def flush(self) -> None:
        """Write what was put since the last time, and drop what is over the limit."""
        for prefix, states in self._new.items():
            if self._directory is not None:
                self._write(self._directory / self._generation(prefix), states)
        self._new.clear()
        self._evict()

    def _generation(self, prefix: Row) -> str:
        return _digest(prefix, self._model)

    def _write(self, generation: Path, states: Mapping[Row, Tensor]) -> None:
        places, start = {}, 0
        for row, tensor in states.items():
            places[_digest(row)] = [start, len(tensor)]
            start += len(tensor)
        body = save({"states": torch.cat(list(states.values()))}, metadata={"rows": json.dumps(places)})
        generation.mkdir(parents=True, exist_ok=True)
        path = generation / f"{hashlib.sha256(body).hexdigest()[:32]}.safetensors"
        beside = path.with_suffix(".new")
        beside.write_bytes(body)
        os.replace(beside, path)

    def _stored(self, prefix: Row) -> dict[str, Tensor]:
        if prefix not in self._mapped:
            self._mapped[prefix] = {}
            if self._directory is not None:
                for path in sorted((self._directory / self._generation(prefix)).glob("*.safetensors")):
                    self._mapped[prefix].update(_read(path))
        return self._mapped[prefix]

    def _evict(self) -> None:
        if self._directory is None:
            return
        paths = sorted(self._directory.glob("*/*.safetensors"), key=lambda p: p.stat().st_mtime, reverse=True)
        total = 0
        for path in paths:
            total += path.stat().st_size
            if total > self._limit:
                path.unlink(missing_ok=True)
        for generation in self._directory.iterdir():
            with suppress(OSError):  # it is not empty
                generation.rmdir()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if _hash(path) != path.stem:
            raise ValueError("it is not what its name says")
        os.utime(path)
        with safe_open(path, framework="pt") as file:
            places, whole = json.loads(file.metadata()["rows"]), file.get_tensor("states")
        return {digest: whole[start : start + length] for digest, (start, length) in places.items()}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        path.unlink(missing_ok=True)
        return {}


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()[:32]


def _digest(ids: Row, model: str = "") -> str:
    return hashlib.sha256(f"{model}|{','.join(map(str, ids))}".encode()).hexdigest()[:32]
