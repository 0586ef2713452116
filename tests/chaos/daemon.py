"""`corrigible run` with the worker that needs no model and, if it is named, one planted bug: the process the nemesis kills.

python -m tests.chaos.daemon [--mutant NAME] run --config FILE
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from tests.chaos import clock


def main() -> None:
    if file := os.environ.get(clock.VARIABLE):
        clock.follow(Path(file))  # before the runtime is imported, and keeps `time.time`
    from tests.chaos import mutants

    if sys.argv[1:2] == ["--mutant"]:
        mutants.plant(sys.argv[2])
        del sys.argv[1:3]
    _without_model()
    from runtime.__main__ import main as corrigible

    corrigible()


def _without_model() -> None:
    """Start our worker where the policy starts the one with the model; nothing else differs."""
    execute = asyncio.create_subprocess_exec

    async def substituted(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        return await execute(
            *("tests.chaos.worker" if part == "runtime.policy.worker" else part for part in command), **options
        )

    setattr(asyncio, "create_subprocess_exec", substituted)  # noqa: B010


if __name__ == "__main__":
    main()
