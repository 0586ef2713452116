"""A producer in a process of its own, made to be killed by the tests: says on its output what its file has.

python -m tests.plugins.producer PORT STORE RUN COUNT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from plugins.mqtt_producer import Producer


async def main(port: int, store: Path, run: int, count: int) -> None:
    async with Producer("127.0.0.1", port, name="house", agent="test", store=store) as producer:
        for number in range(count):
            await producer.post("home/room/light", [run, number])
            print(run, number, flush=True)
        await producer.delivered()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
