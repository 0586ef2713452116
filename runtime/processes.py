"""What the daemon's child processes that compute with torch find in their environment."""

from __future__ import annotations

import os

SERVING, TRAINING = 96, 32  # compiled shapes that are kept; without a limit 1,024, half a gigabyte after 200 decisions
GIVE_BACK = str(1 << 20)  # bytes from which freed memory goes back to the system at once (glibc)


def environment(threads: int, shapes: int) -> dict[str, str]:
    """Ours, with a thread budget and limits on memory; what the user set for these limits stays."""
    return {
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": str(shapes),
        "LRU_CACHE_CAPACITY": str(shapes),  # the same of torch's binding to it
        "MALLOC_MMAP_THRESHOLD_": GIVE_BACK,
        "MALLOC_TRIM_THRESHOLD_": GIVE_BACK,
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of one would starve the other (DESIGN §7)
        "HF_HUB_OFFLINE": "1",
    }
