"""One copy of the base weights for all processes: parameters are mapped from the safetensors file, not read into memory."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

_mapped: set[int] = set()  # addresses of tensors that stand in a file's pages; nothing else may be released


def share(model: Any, directory: Path) -> None:
    """Let every parameter that is stored as it is used stand in the file's own pages, which the processes share."""
    parameters = dict(model.named_parameters())
    for path in sorted(directory.glob("*.safetensors")):
        placed: list[Tensor] = []
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                parameter = parameters.get(name)
                if parameter is None:
                    continue
                stored = file.get_tensor(name)
                if stored.shape == parameter.shape and stored.dtype == parameter.dtype:
                    parameter.data = stored
                    placed.append(stored)
        spans = _spans(path)
        _mapped.update(t.data_ptr() for t in placed if any(start <= t.data_ptr() < end for start, end in spans))


def _spans(path: Path) -> list[tuple[int, int]]:
    """Where the pages of a file stand in this process (Linux; nowhere else is known)."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    own = [line.split()[0].split("-") for line in lines if line.endswith(f" {path.resolve()}")]
    return [(int(start, 16), int(end, 16)) for start, end in own]


def release(tensors: Iterable[Tensor]) -> None:
    """These mapped tensors are not needed for now: their pages may go, and come back from the file if read."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return
    page = mmap.PAGESIZE
    for tensor in tensors:
        start = -(-tensor.data_ptr() // page) * page  # whole pages inside the tensor only: its neighbours may be in use
        length = (tensor.data_ptr() + tensor.nbytes - start) // page * page
        if length > 0 and tensor.data_ptr() in _mapped:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
