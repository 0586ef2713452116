"""What the peers' command lines share: threads, seed, decisions in a row, and one JSON object as the last line."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DECISIONS = 40


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--seed", type=int, default=0)
    return made


def decision_parser(description: str | None) -> argparse.ArgumentParser:
    made = parser(description)
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--decisions", type=int, default=DECISIONS)
    return made


def prepare(arguments: argparse.Namespace) -> None:
    """Before torch or llama.cpp is imported: their thread pools read the environment once."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(arguments.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    random.seed(arguments.seed)


def set_threads(arguments: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)


def decide(data: dict[str, Any], count: int, answer: Callable[[list[int]], str]) -> dict[str, Any]:
    """`answer` (whole prompt -> text) on the held items one after the other, after one that is not counted."""
    items = data["held"][: count + 1]
    answer(data["prefix_ids"] + items[0]["ids"])
    milliseconds, right = [], 0
    for item in items[1:]:
        started = time.perf_counter()
        said = answer(data["prefix_ids"] + item["ids"])
        milliseconds.append((time.perf_counter() - started) * 1000)
        right += said == item["answer"]
    return {
        "decisions": len(milliseconds),
        "p50_ms": round(quantile(milliseconds, 0.5), 2),
        "p95_ms": round(quantile(milliseconds, 0.95), 2),
        "accuracy": round(right / len(milliseconds), 4),
        "prompt_tokens": len(data["prefix_ids"]) + round(sum(len(i["ids"]) for i in items) / len(items)),
    }


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def emit(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)
