"""`corrigible` and `python -m runtime`: run the command line; whatever goes wrong reaches a person as one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from runtime.errors import CorrigibleError

SOFTWARE = 70  # EX_SOFTWARE: the service manager starts it again (`runtime.supervision`)


def main() -> None:
    """The program's entry point. Imports stay inside, so that `--help` is quick."""
    os.environ.setdefault(
        "OPENBLAS_NUM_THREADS", "1"
    )  # the memory's sums are small; waiting threads would cost decisions
    from runtime.cli.commands import app

    try:
        app()
    except Exception as error:
        if os.environ.get("CORRIGIBLE_LOG__LEVEL", "").lower() == "debug":
            raise
        print(f"corrigible: {sentence(error)}", file=sys.stderr)
        sys.exit(1 if ours(error) else SOFTWARE)


def ours(error: BaseException) -> bool:
    """It is one that people can mend; everything else is a fault of the program."""
    return any(isinstance(leaf, CorrigibleError) for leaf in _leaves(error))


def sentence(error: BaseException) -> str:
    """The first thing that went wrong: ours in our words, anything else with its type and how to learn more."""
    leaves = list(_leaves(error))
    for leaf in leaves:
        if isinstance(leaf, CorrigibleError):
            return str(leaf)
    first = leaves[0]
    return f"unexpected {type(first).__name__}: {first} (CORRIGIBLE_LOG__LEVEL=debug shows where)"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from _leaves(inner)


if __name__ == "__main__":
    main()
