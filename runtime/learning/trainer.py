"""The trainer as a child process: kept ready, started at low priority, stopped while a decision is made, gone with the learner."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog

from runtime.errors import Unavailable
from runtime.learning import jobs
from runtime.processes import TRAINING, environment

log = structlog.get_logger("trainer")
SHOWN = 2000  # last characters of a failed one's output that are logged
GRACE = 5.0  # seconds between asking the trainer to stop and killing it
LONGEST = 2.0  # seconds it stands still for one decision, at most
SPAN, SHARE = (
    10.0,
    0.8,
)  # of every so many seconds it stands still for at most this share, however busy the decisions are


class Trainer:
    """One run of `python -m runtime.learning.train`: for a job directory at once, or `ready` with the model loaded."""

    def __init__(self, *, nice: int, threads: int) -> None:
        self._nice = nice
        self._threads = threads
        self._process: asyncio.subprocess.Process | None = None
        self._directory = Path()
        self._pauses = Pauses()
        self._wake: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def directory(self) -> Path:
        return self._directory

    async def ready(self, base: jobs.Base) -> None:
        """Begin without a job: the model is loaded, and `start` hands the job over."""
        told = msgspec.json.encode(base).decode()
        await self._launch(["--ready", told, "--threads", str(self._threads)], os.devnull, asyncio.subprocess.PIPE)

    async def start(self, directory: Path) -> None:
        """Train; stdout and stderr go to `trainer.log` in the job directory."""
        self._directory = directory
        if self._process is not None and self._process.returncode is None and self._process.stdin is not None:
            self._process.stdin.write(f"{directory}\n".encode())
            self._process.stdin.close()
            return
        await self._launch([str(directory)], str(directory / jobs.OUTPUT), asyncio.subprocess.DEVNULL)

    async def _launch(self, arguments: list[str], output: str, stdin: int) -> None:
        with _written(output) as stream:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "runtime.learning.train", *arguments, "--parent", str(os.getpid()),
                stdin=stdin, stdout=stream, stderr=stream, env=environment(self._threads, TRAINING), start_new_session=True,
            )  # fmt: skip
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, self._nice)
        with suppress(OSError):  # if memory runs out, the kernel takes the trainer first (Linux)
            Path(f"/proc/{self._process.pid}/oom_score_adj").write_text("900")

    def yield_to(self, busy: bool) -> None:
        """Stand still from a decision's beginning to its end, within limits: learning must not starve either."""
        if busy and self._pauses.begin(time.monotonic()):
            self._signal(signal.SIGSTOP)
            self._wake = asyncio.get_running_loop().call_later(LONGEST, self._go_on)
        elif not busy:
            self._go_on()

    def _go_on(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
            self._pauses.end(time.monotonic())
            self._signal(signal.SIGCONT)

    def _signal(self, what: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(what)

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
            raise self._failed(f"the trainer was ended by {signal.Signals(-code).name}")
        if code > 0:
            raise self._failed(f"the trainer failed: {self._last_words()}")
        report = await asyncio.to_thread(jobs.read_report, self._directory)
        if report is None:
            raise self._failed(f"the trainer left no report: {self._last_words()}")
        return report

    async def stop(self) -> None:
        """End it if it still runs: politely, then for good."""
        self._go_on()
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        if await self.running(GRACE):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _failed(self, reason: str) -> Unavailable:
        """The log gets the end of its output, for the job directory goes."""
        log.error("no training", reason=reason, output="\n".join(self._output())[-SHOWN:])
        return Unavailable(f"{reason}; what serves stays as it is")

    def _last_words(self) -> str:
        lines = self._output()
        return lines[-1][:300] if lines else "it said nothing"

    def _output(self) -> list[str]:
        try:
            return (self._directory / jobs.OUTPUT).read_text(errors="replace").strip().splitlines()
        except OSError:
            return []


def _written(path: str) -> BinaryIO:
    return open(path, "wb")


class Pauses:
    """How long it stood still lately, in seconds."""

    def __init__(self) -> None:
        self._span_began = -SPAN
        self._still = 0.0
        self._began: float | None = None

    def begin(self, now: float) -> bool:
        """True if it may stand still now."""
        if now - self._span_began >= SPAN:
            self._span_began, self._still = now, 0.0
        if self._began is not None or self._still >= SPAN * SHARE:
            return False
        self._began = now
        return True

    def end(self, now: float) -> None:
        if self._began is not None:
            self._still += now - self._began
            self._began = None


def gave_up(timeout: float) -> Unavailable:
    return Unavailable(f"the trainer took longer than [learner] timeout = {timeout:g} s; what serves stays as it is")
