"""A journal on a disk that fills up or fails, in a process of its own: `python -m tests.journal.disk_victim full|limit FOLDER`.

Prints one JSON object of what happened. With `full` the folder is a file system of a few megabytes.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from runtime.errors import Unavailable
from runtime.journal import Journal, ballast
from runtime.messages import Observation

SOME = 4096  # bytes of a payload


async def until_refused(journal: Journal, name: str, most: int = 3000) -> list[str]:
    """Ids that were told "stored", until one was not."""
    kept: list[str] = []
    for number in range(most):
        one = Observation(id=f"{name}-{number}", topic="t", payload=os.urandom(SOME), at=1.0)
        try:
            await journal.put(one)
        except Unavailable:
            return kept
        kept.append(one.id)
    raise AssertionError("the disk was never full")


async def full(folder: Path) -> dict[str, Any]:
    ballast.LOOK = 0.0
    async with Journal.open(folder / "journal.db", ballast=1) as journal:
        filler = folder / "filler"
        with filler.open("wb") as file:
            free = os.statvfs(folder)
            file.write(bytes(free.f_bavail * free.f_frsize - 256 * 1024))
        before = journal.low
        kept = await until_refused(journal, "full")
        spent = journal.low, journal.healthy
        readable = len(await journal.unperceived())
        filler.unlink()
        after = journal.low
        await journal.put(Observation(id="again", topic="t", payload=b"1", at=2.0))
        return {
            "before": before, "kept": kept, "spent": spent, "readable": readable, "after": after, "healthy": journal.healthy,
            "ballast": (folder / "ballast").stat().st_size,
        }  # fmt: skip


async def limit(folder: Path) -> dict[str, Any]:
    """Files may not grow: a write fails with an error of the disk."""
    async with Journal.open(folder / "journal.db") as journal:
        await journal.put(Observation(id="first", topic="t", payload=b"1", at=1.0))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, hard))
        kept = await until_refused(journal, "limit")
        ill = journal.healthy
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await journal.put(Observation(id="again", topic="t", payload=b"1", at=2.0))
        return {"kept": ["first", *kept], "ill": ill, "healthy": journal.healthy}


if __name__ == "__main__":
    print(json.dumps(asyncio.run({"full": full, "limit": limit}[sys.argv[1]](Path(sys.argv[2])))))
