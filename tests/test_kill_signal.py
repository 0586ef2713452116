"""The kill switch as a signal: from the first moment of a start to the end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from runtime import app as application
from runtime import config
from tests.plugins.conftest import until


async def test_usr1_pulls_the_switch_also_while_it_starts(tmp_path: Path) -> None:
    settings = config.load(None, agent={"data": tmp_path / "data"}, broker={"mode": "none"}, http={"port": 0})
    switch = tmp_path / "data" / application.KILL
    running = asyncio.create_task(application.run(settings, safe=True))
    await asyncio.sleep(0)  # its first step: there is no journal yet
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(switch.exists)
    await until((tmp_path / "data" / "http.port").exists)
    switch.unlink()
    os.kill(os.getpid(), signal.SIGUSR1)
    await until(switch.exists)
    os.kill(os.getpid(), signal.SIGTERM)
    await running
    for name in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(name)
