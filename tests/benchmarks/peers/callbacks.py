"""The clocks of `trl_train`: steps a second, and seconds of training until an accuracy is reached."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

TIMES = "times.json"


class Pace(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Counts the steps after the first ones, and ends the training when it has seen enough."""

    def __init__(self, seconds: float, warm_up: int) -> None:
        self.seconds, self.warm_up = seconds, warm_up
        self.started, self.elapsed, self.steps = 0.0, 0.0, 0
        self.before, self.tokens = 0, 0  # without padding

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        if state.global_step == self.warm_up:
            self.started, self.before = now, state.num_input_tokens_seen
        if state.global_step > self.warm_up:
            self.elapsed, self.steps = now - self.started, state.global_step - self.warm_up
            self.tokens = state.num_input_tokens_seen - self.before
            control.should_training_stop = self.elapsed >= self.seconds


class Judged(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Judges every checkpoint, with the clock stopped from before it is written, and ends the training at `until`.

    `times.json` beside the checkpoints has what was found so far; a checkpoint that is not in it was cut off.
    """

    def __init__(self, judge: Callable[[Path], float], until: float, out: Path, times: list[dict[str, Any]]) -> None:
        self.judge, self.until, self.out, self.times = judge, until, out, times
        self.elapsed: float = times[-1]["seconds"] if times else 0.0
        self.worked: float = times[-1]["cpu_seconds"] if times else 0.0  # says more where it was not alone
        self.resumed, self.resumed_cpu = 0.0, 0.0

    @property
    def reached(self) -> float | None:
        """Seconds of training after which the accuracy was first as wanted."""
        return next((row["seconds"] for row in self.times if row["accuracy"] >= self.until), None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.resumed, self.resumed_cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now, cpu = time.perf_counter(), time.process_time()
        self.elapsed, self.resumed = self.elapsed + now - self.resumed, now
        self.worked, self.resumed_cpu = self.worked + cpu - self.resumed_cpu, cpu

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        adapter = self.out / f"checkpoint-{state.global_step}"
        row = {"step": state.global_step, "epoch": round(state.epoch, 3), "seconds": round(self.elapsed, 2)}
        row["cpu_seconds"] = round(self.worked, 2)
        self.times.append(row | {"accuracy": self.judge(adapter), "adapter": str(adapter)})
        beside = self.out / f"{TIMES}.new"
        beside.write_text(json.dumps(self.times, indent=1), encoding="utf-8")
        beside.replace(self.out / TIMES)
        control.should_training_stop = control.should_training_stop or self.reached is not None
        self.resumed, self.resumed_cpu = time.perf_counter(), time.process_time()


def read_times(out: Path) -> list[dict[str, Any]]:
    path = out / TIMES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
