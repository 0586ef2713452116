"""How fast this machine reads memory, in GB/s: the roof over any decision that has to read the weights once.

Two measurements through torch, the library that Corrigible computes with, both over far more bytes than the caches hold:
the sum of one large buffer, and bfloat16 matrix times vector over many matrices in turn (what one token through a model is).
The best of the passes counts, because other work on the machine can only slow one down.

    python -m tests.benchmarks.peers.bandwidth [--threads 1]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks.peers import common

PASSES = 10
BUFFER = 1 << 28  # float32 values: 1 GiB
MATRICES, SIDE = 64, 2048  # 8 MiB each in bfloat16, 512 MiB together


def main() -> None:
    arguments = common.parser(__doc__).parse_args()
    common.prepare(arguments)
    common.set_threads(arguments)
    found = {
        "sum_gb_s": summed(),
        "matvec_bf16_gb_s": multiplied("bfloat16"),
        "matvec_fp32_gb_s": multiplied("float32"),
    }
    common.emit({"threads": arguments.threads} | {name: round(value, 2) for name, value in found.items()})


def summed() -> float:
    import torch

    buffer = torch.ones(BUFFER)
    return best(buffer.sum, buffer.nbytes)


def multiplied(dtype: str) -> float:
    import torch

    kind = getattr(torch, dtype)
    matrices = [torch.randn(SIDE, SIDE).to(kind) for _ in range(MATRICES)]
    vector = torch.randn(1, SIDE).to(kind)

    @torch.inference_mode()
    def read() -> None:
        for matrix in matrices:
            torch.nn.functional.linear(vector, matrix)

    return best(read, sum(matrix.nbytes for matrix in matrices))


def best(read: Callable[[], Any], size: int) -> float:
    """GB/s of the fastest of the passes over `size` bytes."""
    seconds = []
    for _ in range(PASSES):
        started = time.perf_counter()
        read()
        seconds.append(time.perf_counter() - started)
    return size / min(seconds) / 1e9


if __name__ == "__main__":
    main()
