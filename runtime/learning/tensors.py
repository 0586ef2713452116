"""safetensors files as numpy arrays, for a daemon without torch: numpy has no bfloat16, so the bytes are read here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.errors import Corrupt

HEADER_LIMIT = 1 << 24  # bytes; a large base model names thousands of tensors
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}
Array = NDArray[Any]


class Entry(msgspec.Struct, frozen=True):
    """Where a tensor lies in the file. What else the header says has none of these."""

    dtype: str = ""
    shape: tuple[int, ...] = ()
    data_offsets: tuple[int, int] = (0, 0)


class File:
    """One mapped file. Tensors come as float32, whole numbers as int64."""

    def __init__(self, path: Path) -> None:
        """Raises Corrupt if it is no safetensors file."""
        try:
            self._raw = np.memmap(path, dtype=np.uint8, mode="r")
            size = int.from_bytes(self._raw[:8].tobytes(), "little")
            if size > min(HEADER_LIMIT, len(self._raw) - 8):
                raise ValueError("its header is too long")
            header = msgspec.json.decode(self._raw[8 : 8 + size].tobytes(), type=dict[str, Entry])
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise Corrupt(f"{path} cannot be read as safetensors: {error}") from None
        self._path, self._start = path, 8 + size
        self._entries = {name: entry for name, entry in header.items() if name != "__metadata__"}

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def read(self, name: str) -> Array:
        """One tensor. Raises Corrupt for a type that no adapter has, and where the file ends too early."""
        entry = self._entries[name]
        if entry.dtype not in TYPES:
            raise Corrupt(f"{self._path}: tensor {name} has the type {entry.dtype}, which no adapter has")
        start, end = entry.data_offsets
        try:
            raw = self._raw[self._start + start : self._start + end].tobytes()
            values = np.frombuffer(raw, TYPES[entry.dtype]).reshape(entry.shape)
        except ValueError as error:
            raise Corrupt(f"{self._path}: tensor {name} is not whole: {error}") from None
        if entry.dtype == "BF16":  # the upper half of a float32
            values = (values.astype("<u4") << 16).view("<f4")
        kind = np.int64 if values.dtype.kind == "i" else np.float32
        return values.astype(kind, copy=False)
