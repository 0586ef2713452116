"""What is killed in the crash tests: small programs that do real, durable work and write down what they were told is safe."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from runtime.journal import Journal
from runtime.learning.registry import Registry
from runtime.messages import Observation

GROUPS, TOGETHER = 12, 6
LARGE = 60_000  # bytes; some groups are so large that the journal's log is folded back into its file meanwhile
LINEAGE = ("fb-1", "fb-2")


def observation(number: int, group: int) -> Observation:
    payload = b"21.5" if group % 2 else bytes([65 + number % 26]) * LARGE
    return Observation(id=f"ob-{number}", topic=f"home/hall/t{number % 3}", payload=payload, at=1e9 + number)


async def fill(root: Path, told: Callable[[str], None]) -> None:
    """Store observations in a journal, several at once, as sensors do."""
    async with Journal.open(root / "journal.db") as journal:

        async def keep(one: Observation) -> None:
            await journal.put(one)
            told(one.id)

        for group in range(GROUPS):
            numbers = range(group * TOGETHER, (group + 1) * TOGETHER)
            await asyncio.gather(*(keep(observation(number, group)) for number in numbers))


async def publish(root: Path, told: Callable[[str], None]) -> None:
    """Take the adapter of a finished job over into a registry that holds another one already."""
    told(Registry(root / "adapters").publish(root.parent / "job", parent="base", lineage=LINEAGE, verdict="better"))


async def boast(root: Path, told: Callable[[str], None]) -> None:
    """A planted bug: says that it is safe before it is."""
    async with Journal.open(root / "journal.db") as journal:
        for number in range(TOGETHER):
            told(observation(number, 1).id)
            await journal.put(observation(number, 1))


VICTIMS = {"fill": fill, "publish": publish, "boast": boast}


def main(name: str, root: Path, history: Path) -> None:
    """`history` gets a line for each id, on the disk before the next thing is done."""
    handle = os.open(history, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def told(id: str) -> None:
        os.write(handle, f"{id}\n".encode())
        os.fsync(handle)

    asyncio.run(VICTIMS[name](root, told))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
