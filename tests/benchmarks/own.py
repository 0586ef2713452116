"""Corrigible's own side of the comparison: a job directory made of the same file that the peers read, trained and judged."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import data as peer_data


def write_job(path: Path, directory: Path, *, train: int, held: int, **settings: Any) -> Path:
    """A job of the first `train` items of a peers' file, judged on the first `held` of its holdout."""
    import msgspec

    from runtime.config import LearnerConfig
    from runtime.learning import jobs
    from runtime.messages import Example

    contents = peer_data.read(path)
    catalogue = peer_data.catalogue(contents)
    by_answer = {catalogue.render(action): action for action in catalogue.finite()}

    def examples(items: list[dict[str, Any]], kind: str) -> list[Example]:
        return [
            Example(id=f"{kind}{i}", scope="desk", text=item["input"], action=by_answer[item["answer"]], at=float(i))
            for i, item in enumerate(items)
        ]

    job = jobs.Job(
        base=msgspec.convert(contents["base"], jobs.Base),
        instruction=contents["instruction"],
        catalogues={"desk": catalogue},
        settings=LearnerConfig(**settings).model_dump(mode="json"),
        catalogue_tokens=contents["catalogue_tokens"],
    )
    jobs.write(directory, job, examples(contents["train"][:train], "t"), examples(contents["held"][:held], "h"))
    return directory


def main() -> None:
    arguments = argparse.ArgumentParser(description="one job, trained and judged")
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--train", type=int, default=512)
    arguments.add_argument("--held", type=int, default=0)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--set", nargs="*", default=[], help="[learner] keys: key=value")
    asked = arguments.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    settings = dict(pair.split("=", 1) for pair in asked.set)
    write_job(asked.data, asked.out, train=asked.train, held=asked.held, threads=asked.threads, **settings)
    from runtime.learning.run import Run

    report = Run(asked.out)()
    print(json.dumps({"examples_per_second": report.examples_per_second, "seconds": report.seconds,
                      "accuracy": report.candidate.accuracy, "recall": report.candidate.recall}))  # fmt: skip


if __name__ == "__main__":
    main()
