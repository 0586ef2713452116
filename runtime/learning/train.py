"""The training program: job directory in, adapter and report out. By hand: `python -m runtime.learning.train JOB_DIR`,
over several processes: `torchrun --nproc-per-node 2 -m runtime.learning.train JOB_DIR`.

The daemon keeps one ready (`--ready BASE`): the model is loaded, the job's directory comes on standard input. It names its
own process as parent: a trainer whose daemon was killed ends by itself. torch is imported only when that is arranged.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import msgspec

from runtime.errors import CorrigibleError
from runtime.learning import jobs, parent


def main() -> int:
    """Exit code 0 with report.json written, or 1 with one sentence."""
    arguments = argparse.ArgumentParser(prog="python -m runtime.learning.train")
    arguments.add_argument("job", type=Path, nargs="?", help="the job directory; on standard input with --ready")
    arguments.add_argument("--ready", metavar="BASE", help="JSON of the base model to load before the job comes")
    arguments.add_argument("--threads", type=int, default=1, help="CPU threads, with --ready")
    arguments.add_argument("--parent", type=int, help="end when this process is gone")
    asked = arguments.parse_args()
    try:
        parent.bind(asked.parent)
        _run(asked)
    except CorrigibleError as error:
        print(error, file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):  # torch has no class for it on a CPU
            raise
        print("out of memory; try a smaller [learner] batch or fewer layers", file=sys.stderr)
        return 1
    return 0


def _run(asked: argparse.Namespace) -> None:
    from runtime.learning.fit import Group
    from runtime.learning.run import Run
    from runtime.policy.encoder import backbone_of

    directory, backbone = asked.job, None
    if asked.ready:
        backbone = backbone_of(msgspec.json.decode(asked.ready, type=jobs.Base), asked.threads)
        line = sys.stdin.readline().strip()
        if not line:
            return  # nobody needed it
        directory = Path(line)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(directory / jobs.OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    with Group.join(os.environ) as group:
        report = Run(directory, backbone, group)()
        if group.rank == 0:
            jobs.write_atomically(directory / jobs.REPORT, report)


if __name__ == "__main__":
    sys.exit(main())
