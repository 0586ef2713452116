"""The trainer as a child process: started at low priority, watched, and gone when the learner goes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from runtime.errors import Unavailable
from runtime.learning import jobs

GRACE = 5.0  # seconds between asking the trainer to stop and killing it
OUTPUT = "trainer.log"


class Trainer:
    """One run of `python -m runtime.learning.train JOB_DIR`."""

    def __init__(self, directory: Path, *, nice: int, threads: int) -> None:
        self.directory = directory
        self._nice = nice
        self._threads = threads
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Begin; stdout and stderr go to `trainer.log` in the job directory."""
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads),
            "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads would starve the policy worker (DESIGN §7)
            "HF_HUB_OFFLINE": "1",
        }
        with (self.directory / OUTPUT).open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "runtime.learning.train", str(self.directory), str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True,
            )  # fmt: skip
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, self._nice)
        with suppress(OSError):  # if memory runs out, the kernel takes the trainer first (Linux)
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text("900")

    async def running(self, wait: float) -> bool:
        """Wait up to `wait` seconds for the end; True if it still runs."""
        assert self._process is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._process.wait()
        return self._process.returncode is None

    async def report(self) -> jobs.Report:
        """What the finished run found. Raises Unavailable with its last words if it failed."""
        assert self._process is not None
        code = await self._process.wait()
        if code < 0:
            raise Unavailable(f"the trainer was ended by {signal.Signals(-code).name}; what serves stays as it is")
        if code > 0:
            raise Unavailable(f"the trainer failed: {self._last_words()}; what serves stays as it is")
        report = await asyncio.to_thread(jobs.read_report, self.directory)
        if report is None:
            raise Unavailable(f"the trainer left no report; see {self.directory / OUTPUT}")
        return report

    async def stop(self) -> None:
        """End it if it still runs: politely, then for good."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        if await self.running(GRACE):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _last_words(self) -> str:
        try:
            lines = (self.directory / OUTPUT).read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1][:300] if lines else "it said nothing"


def gave_up(timeout: float) -> Unavailable:
    return Unavailable(f"the trainer took longer than [learner] timeout = {timeout:g} s; what serves stays as it is")
