"""A daemon reduced to its door: MQTT plugin, ingest and journal in a process of its own, made to be killed by the tests.

python -m tests.plugins.receiver DATA PORT
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

from plugins.mqtt import Mqtt
from runtime.bus import Bus
from runtime.catalogue import DO_NOTHING, Catalogue
from runtime.config import BrokerConfig
from runtime.ingest import Ingest
from runtime.journal import Journal
from runtime.metrics import Metrics
from runtime.roles import Context
from runtime.table import CorrectionTable


async def main(data: Path, port: int) -> None:
    plugin = Mqtt(sensors=["home/+/+"])
    plugin.name = "Mqtt"
    broker = BrokerConfig(host="127.0.0.1", port=port)
    plugin.context = Context(agent="test", data=data, broker=broker, zone=ZoneInfo("UTC"))
    async with Journal.open(data / "journal.db") as journal:
        ingest = Ingest(journal, Bus(), CorrectionTable(), lambda scope: Catalogue(tools=(DO_NOTHING,)), Metrics())
        await plugin.sense(ingest.emit)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
