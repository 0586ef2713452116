"""`make bench`: Corrigible beside its peers, all really run, one after the other, with the same number of threads.

    python -m tests.benchmarks.bench [--threads 1] [--only NAME ...] [--fresh] [--long]

Every part is a program of its own whose last line is JSON; what it said is kept in `build/bench/`, so a run that was broken
off goes on where it was. `--long` adds the time to 65 % accuracy of TRL (a quarter of an hour and more).
All parts are run once, then all again: a shared machine has slow and fast minutes, and what is compared should share them.
The table and `build/bench.json` are made from what is there: a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OUT = Path("build/bench")
SHORT, LISTED = OUT / "short.json", OUT / "listed.json"
TRAINED = OUT / "trained"  # the adapter that decisions are measured with
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
LAYERS = "top:8"


@dataclass(frozen=True)
class Part:
    name: str
    module: str
    arguments: tuple[str, ...]
    times: int = 3
    long: bool = False
    environment: dict[str, str] = field(default_factory=dict)


AS_PEERS = ("seen=0", "word_drop=0", "dropout=0", "refit=0")  # [learner]: what the peers' recipes do not have


def parts(threads: int) -> list[Part]:
    t = ("--threads", str(threads))
    short, listed = ("--data", str(SHORT)), ("--data", str(LISTED))
    quick = ("--set", f"layers={LAYERS}", "batch=16", "epochs=4", "min_steps=0", *AS_PEERS)
    trl, own, decide = "tests.benchmarks.peers.trl_train", "tests.benchmarks.own", "tests.benchmarks.own_decide"
    adapter = ("--adapter", str(TRAINED / "adapter"))
    plain = [
        Part("bandwidth", "tests.benchmarks.peers.bandwidth", t),
        Part("gradient", "tests.benchmarks.own_gradient", short, times=1),
        Part("own_to_65", own, (*short, *t, "--out", str(TRAINED), "--train", "512", "--held", "300", "--until", "0.65", *quick), times=1),
        Part("own_listed", own, (*listed, *t, "--out", str(OUT / "job"), "--train", "96", *quick)),
        Part("trl_fp32", trl, (*listed, *t, "--recipe", "fp32", "--batch", "2", "--seconds", "20")),
        Part("trl_bf16", trl, (*listed, *t, "--recipe", "bf16", "--batch", "2", "--seconds", "20")),
        Part("own_short", own, (*short, *t, "--out", str(OUT / "job"), "--train", "256", *quick)),
        Part("trl_tuned", trl, (*short, *t, "--recipe", "tuned", "--layers", LAYERS, "--seconds", "20")),
        Part("trl_subclassed", trl, (*short, *t, "--recipe", "subclassed", "--layers", LAYERS, "--seconds", "20")),
        Part("decide", decide, (*listed, *t, *adapter)),
        Part("decide_short", decide, (*short, *t, *adapter)),
        Part("decide_1000", decide, (*short, *t, *adapter, "--actions", "1000")),
        Part("generate", "tests.benchmarks.peers.generate", (*listed, *t, *adapter, "--decisions", "8")),
        Part("llama_cpp", "tests.benchmarks.peers.llama_cpp", (*listed, *t, "--decisions", "20")),
        Part("llama_cpp_q4_0", "tests.benchmarks.peers.llama_cpp", (*listed, *t, "--decisions", "20", "--requantise", "Q4_0")),
        Part("live", "tests.benchmarks.own_live", short),
        Part("swap", "tests.benchmarks.own_swap", (*short, *adapter, "--rate", "3"), times=1),
        Part(
            "trl_to_65", trl, (*short, *t, "--train", "512", "--recipe", "bf16", "--until", "0.65", "--epochs", "3", "--resume", "--out", str(OUT / "trl")),
            times=1, long=True,
        ),
    ]  # fmt: skip
    weak = ("own_listed", "trl_fp32", "own_short", "trl_subclassed", "decide", "generate", "llama_cpp")
    return plain + [
        Part(f"avx2_{p.name}", p.module, p.arguments, times=1, environment=AVX2) for p in plain if p.name in weak
    ]


def measure(part: Part, threads: int, number: int) -> None:
    """Run it for this round, unless it was."""
    path = OUT / f"{part.name}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    if len(found) >= min(part.times, number):
        return
    print(f"{part.name} {number}/{part.times}", flush=True)
    environment = {
        **os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false", **part.environment,
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", "-m", part.module, *part.arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  failed: {(done.stderr or done.stdout).strip().splitlines()[-1][:200]}", flush=True)
        return
    found.append(json.loads(done.stdout.strip().splitlines()[-1]))
    path.write_text(json.dumps(found, indent=1))


class Results:
    """What is there of all parts."""

    def __init__(self) -> None:
        self._found = {
            path.stem: json.loads(path.read_text()) for path in OUT.glob("*.json") if path not in (SHORT, LISTED)
        }

    def _values(self, part: str, *keys: str) -> list[float]:
        return [value for run in self._found.get(part, []) if (value := _at(run, keys)) is not None]

    def median(self, part: str, *keys: str) -> float | None:
        values = self._values(part, *keys)
        return float(statistics.median(values)) if values else None

    def spread(self, part: str, *keys: str) -> str:
        values = self._values(part, *keys)
        return f"{min(values):.4g} to {max(values):.4g}" if len(values) > 1 else ""

    def ratio(self, over: tuple[str, ...], under: tuple[str, ...]) -> float | None:
        """The median of the rounds' ratios."""
        ratios = [a / b for a, b in zip(self._values(*over), self._values(*under), strict=False) if b]
        return float(statistics.median(ratios)) if ratios else None


def _at(run: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        run = run.get(key) if isinstance(run, dict) else None
    return float(run) if isinstance(run, int | float) else None


RATE, P50 = "examples_per_second", "p50_ms"
RATIOS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "train_vs_trl_fp32": (("own_listed", RATE), ("trl_fp32", RATE), ">= 40"),
    "train_vs_trl_bf16": (("own_listed", RATE), ("trl_bf16", RATE), ">= 20"),
    "train_vs_tuned": (("own_short", RATE), ("trl_tuned", RATE), ">= 3"),
    "train_vs_tuned_subclassed": (("own_short", RATE), ("trl_subclassed", RATE), ">= 3"),
    "time_to_65_vs_trl": (("trl_to_65", "reached_seconds"), ("own_to_65", "reached_seconds"), ">= 15"),
    "decide_vs_generate": (("generate", P50), ("decide", P50), ">= 12"),
    "decide_vs_llamacpp": (("llama_cpp", P50), ("decide", P50), ">= 3"),
    "decide_vs_llamacpp_q4_0": (("llama_cpp_q4_0", P50), ("decide", P50), ""),
    "decide_1000_vs_77_actions": (("decide_1000", P50), ("decide_short", P50), "<= 1.5"),
    "p95_training_vs_idle": (("live", "p95_training_ms"), ("live", "p95_idle_ms"), "<= 1.3"),
    "avx2_train_vs_trl_fp32": (("avx2_own_listed", RATE), ("avx2_trl_fp32", RATE), ">= 20"),
    "avx2_train_vs_tuned_subclassed": (("avx2_own_short", RATE), ("avx2_trl_subclassed", RATE), ""),
    "avx2_decide_vs_generate": (("avx2_generate", P50), ("avx2_decide", P50), ""),
    "avx2_decide_vs_llamacpp": (("avx2_llama_cpp", P50), ("avx2_decide", P50), ""),
}
PLAIN: dict[str, tuple[tuple[str, ...], str]] = {
    "live_seconds_20_on_1000": (("live", "live_seconds"), "<= 45"),
    "pss_total_mb": (("live", "pss_mb", "total"), "<= 1600"),
    "swap_refused": (("swap", "refused"), "0"),
    "swap_mixed": (("swap", "mixed"), "0"),
    "swap_rss_growth_mb": (("swap", "rss_growth_mb"), "< 10"),
    "swap_worst_gap_ms": (("swap", "worst_gap_ms"), "< 10"),
    "gradient_error": (("gradient", "gradient_error"), "<= 1e-5"),
}


def figures(results: Results) -> list[tuple[str, float | None, str, str]]:
    """(key, figure, target, what stands behind it)."""
    rows: list[tuple[str, float | None, str, str]] = []
    for key, (over, under, target) in RATIOS.items():
        behind = f"{_said(results, over)} / {_said(results, under)}"
        rows.append((key, results.ratio(over, under), target, behind))
    floor = _stream_floor_ms(results)
    decide = results.median("decide_short", P50)
    rows.append(
        ("decide_vs_stream_floor", decide / floor if decide and floor else None, "<= 3", f"{decide} ms / {floor} ms")
    )
    rows.extend((key, results.median(*at), target, results.spread(*at)) for key, (at, target) in PLAIN.items())
    return rows


def _said(results: Results, at: tuple[str, ...]) -> str:
    value = results.median(*at)
    spread = results.spread(*at)
    return f"{at[0]} {value:.4g}" + (f" ({spread})" if spread else "") if value is not None else f"{at[0]} -"


def _stream_floor_ms(results: Results) -> float | None:
    """Milliseconds to read all layers' weights once at the measured bandwidth."""
    bandwidth = results.median("bandwidth", "sum_gb_s")
    if bandwidth is None or not SHORT.exists():
        return None
    directory = Path(json.loads(SHORT.read_text())["base"]["directory"])
    config = json.loads((directory / "config.json").read_text())
    embedding = config["vocab_size"] * config["hidden_size"] * 2
    size = sum(path.stat().st_size for path in directory.glob("*.safetensors")) - embedding
    return float(round(size / bandwidth / 1e6, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description="Corrigible beside its peers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs said")
    parser.add_argument("--times", type=int, default=3, help="repetitions, at most")
    parser.add_argument("--long", action="store_true")
    asked = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    chosen = [p for p in parts(asked.threads) if (p.name in asked.only if asked.only else (asked.long or not p.long))]
    if asked.fresh:
        for part in chosen:
            (OUT / f"{part.name}.json").unlink(missing_ok=True)
    _data()
    for number in range(1, asked.times + 1):
        for part in chosen:
            measure(part, asked.threads, number)
    rows = figures(Results())
    for key, figure, target, behind in rows:
        print(f"{key:32} {'-' if figure is None else f'{figure:.4g}':>10}  {target:8} {behind}")
    found = {key: figure for key, figure, _, _ in rows if figure is not None}
    Path("build/bench.json").write_text(json.dumps(found, indent=1) + "\n")


def _data() -> None:
    from tests.benchmarks.peers import data

    for path, listed in ((SHORT, False), (LISTED, True)):
        if not path.exists():
            data.write(path, limit=1100, holdout=300, listed=listed)


if __name__ == "__main__":
    main()
