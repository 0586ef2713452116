"""What a run costs beside accuracy: memory by process, latencies, and what a swap does to the decisions around it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from runtime.learning.scores import percentile
from runtime.messages import Decision

MIB = 1024.0  # kB in a MiB


def pss_mib(pid: int | None) -> float | None:
    """Proportional set size of a process (shared pages counted by share), None where the system does not tell."""
    if pid is None:
        return None
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / MIB for line in text.splitlines() if line.startswith("Pss:")), None)


class Gauges:
    """Filled while the stream runs, read at the end."""

    def __init__(self) -> None:
        self.quiet: list[float] = []  # ms of live decisions by the model while nothing trained
        self.training: list[float] = []  # ms of rehearsals while the trainer ran
        self.finished: list[float] = []  # monotonic times at which decisions were done during cycles
        self.released: list[float] = []
        self.refused = 0
        self._pss: dict[str, float] = {}

    def decided(self, decision: Decision, *, training: bool) -> None:
        if training:
            self.finished.append(time.monotonic())
            self.refused += decision.by == "fallback"
        if decision.by == "model":
            (self.training if training else self.quiet).append(decision.timings_ms["decide"])

    def swapped(self, at: float) -> None:
        """A decision came from another adapter than the one before it, which was done by `at`."""
        self.released.append(at)

    def memory(self, policy: int | None, trainer: int | None) -> None:
        """Keep the largest value seen of each process."""
        for name, pid in (("daemon", os.getpid()), ("policy", policy), ("trainer", trainer)):
            value = pss_mib(pid)
            if value is not None:
                self._pss[name] = max(self._pss.get(name, 0.0), value)

    def gaps_ms(self) -> list[float]:
        """For every swap: from the last decision of the old adapter to the first of the new one."""
        found = []
        for moment in self.released:
            around = [t for t in self.finished if t <= moment][-2:]
            if len(around) == 2:
                found.append((around[1] - around[0]) * 1000)
        return found

    def report(self, mixed: int) -> dict[str, object]:
        gaps = self.gaps_ms()
        return {
            "decision_ms": {
                "p50": percentile(self.quiet, 0.5),
                "p95": percentile(self.quiet, 0.95),
                "p95_while_training": percentile(self.training, 0.95),
            },
            "swaps": {
                "count": len(self.released),
                "refused_decisions": self.refused,
                "mixed_decisions": mixed,
                "max_gap_ms": max(gaps, default=None),
            },
            "pss_mb": {name: round(self._pss.get(name, 0.0), 1) for name in ("daemon", "policy", "trainer")},
        }
