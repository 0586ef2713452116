"""Corrigible's own side of the comparison: a job directory made of the same file that the peers read, trained and judged.

With `--until` the candidate is judged after every epoch, like a peer's checkpoints; the time of judging does not count.
`--dev` judges on training items behind the first `--train`, so that settings can be chosen without the holdout.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import data as peer_data


def write_job(path: Path, directory: Path, *, train: int, held: int, dev: bool = False, **settings: Any) -> Path:
    """A job of the first `train` items of a peers' file, judged on the first `held` of its holdout, or with `dev` on the
    training items that come next."""
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
    judged = contents["train"][train:] if dev else contents["held"]
    jobs.write(directory, job, examples(contents["train"][:train], "t"), examples(judged[:held], "h"))
    return directory


def run(directory: Path, until: float) -> dict[str, Any]:
    """Train the job; `times`: what was reached after which seconds of training, if `until` is not 0."""
    from runtime.learning import jobs
    from runtime.learning.evaluate import judge
    from runtime.learning.run import CANDIDATE, Run

    class Timed(Run):
        times: list[dict[str, float]]
        begun = 0.0

        def _champion(self) -> tuple[list[bool], jobs.Scores]:
            found = super()._champion()
            self.times, self.begun = [], time.perf_counter()
            return found

        def _on_held(self) -> tuple[float, float] | None:
            now = time.perf_counter()
            self._serve()
            accuracy = judge(self.scorer, self.job, CANDIDATE, self.held).accuracy
            self.times.append({"seconds": round(now - self.begun, 2), "accuracy": round(accuracy, 4)})
            self.begun += time.perf_counter() - now
            return None

    made = Timed(directory) if until else Run(directory)
    report = made()
    found: dict[str, Any] = {
        "examples_per_second": report.examples_per_second, "seconds": report.seconds,
        "accuracy": report.candidate.accuracy, "recall": report.candidate.recall,
    }  # fmt: skip
    if isinstance(made, Timed):
        reached = next((point["seconds"] for point in made.times if point["accuracy"] >= until), None)
        found |= {"until": until, "reached_seconds": reached, "times": made.times}
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description="one job, trained and judged")
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--train", type=int, default=512)
    arguments.add_argument("--held", type=int, default=0)
    arguments.add_argument("--dev", action="store_true")
    arguments.add_argument("--until", type=float, default=0.0)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--set", nargs="*", default=[], help="[learner] keys: key=value")
    asked = arguments.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    settings = dict(pair.split("=", 1) for pair in asked.set)
    write_job(
        asked.data, asked.out, train=asked.train, held=asked.held, dev=asked.dev, threads=asked.threads, **settings
    )
    print(json.dumps(run(asked.out, asked.until)))


if __name__ == "__main__":
    main()
