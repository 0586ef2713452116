"""The same training program over two processes: the same losses, the same adapter, one report."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from runtime.learning import jobs
from runtime.learning.jobs import Base
from tests.learning.test_train import job_directory, report, run

TWO = {  # accelerate 1.x starts processes as torchrun does where it hears --multi_gpu, and wants MPI where it hears --cpu
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"],
}


def launched(launcher: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *TWO[launcher], "-m", "runtime.learning.train", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def losses(output: str) -> list[float]:
    return [float(found) for found in re.findall(r"loss (\S+)", output)]


@pytest.mark.parametrize("launcher", TWO)
def test_two_processes_learn_what_one_learns(model: Base, tmp_path: Path, launcher: str) -> None:
    if find_spec(launcher.replace("torchrun", "torch")) is None:
        pytest.skip(f"{launcher} is not installed (make bench installs it)")
    settings: dict[str, Any] = {"min_steps": 12, "batch": 3, "lr": 0.01, "layers": "top:2"}
    alone = job_directory(tmp_path / "one", model, **settings)
    together = job_directory(tmp_path / "two", model, **settings)
    one, two = run(alone), launched(launcher, together)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert len(losses(one.stdout)) == 12
    assert losses(two.stdout) == pytest.approx(losses(one.stdout), rel=1e-3, abs=2e-4)
    assert report(together).candidate.accuracy == report(alone).candidate.accuracy
    assert report(together).fingerprint == pytest.approx(report(alone).fingerprint, abs=1e-3)
    mine, theirs = (load_file(d / jobs.ADAPTER / "adapter_model.safetensors") for d in (alone, together))
    assert mine.keys() == theirs.keys()
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-2, atol=2e-3)
