"""What the daemon's child processes that compute with torch find in their environment."""

from __future__ import annotations

import os

PRIMITIVES = (
    "96"  # compiled shapes oneDNN and its torch binding keep: 1,024 by default, half a gigabyte after 200 decisions
)


def environment(threads: int) -> dict[str, str]:
    """Ours, with a thread budget; what the user set for oneDNN's caches stays."""
    return {
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": PRIMITIVES,
        "LRU_CACHE_CAPACITY": PRIMITIVES,
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of one would starve the other (DESIGN §7)
        "HF_HUB_OFFLINE": "1",
    }
