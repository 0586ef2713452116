"""`make evaluate`: what is learnt from corrections, on real labelled data, by `corrigible backtest`; hours on two cores.

    python -m tests.benchmarks.evaluate [--data ../shared/data] [--only NAME ...] [--seeds 3] [--fresh] [--table] [--record]

Each run is a backtest whose report is kept in `tests/benchmarks/reports/`, so what was broken off goes on where it was, on
another machine too; `--fresh` runs again what changed code should be asked anew. Without the data, the same is done on the small `tests/benchmarks/desk` (own work). The table is printed, and written between its
markers in RESULTS.md with `--record`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

OUT, RESULTS = Path("tests/benchmarks/reports"), Path("tests/benchmarks/RESULTS.md")
LOGS = Path("build/evaluate")  # and reports in the making
REAL, OWN = Path("../shared/data"), Path("tests/benchmarks")
BEGIN, END = "<!-- evaluate -->", "<!-- end of evaluate -->"
SENTENCES = (("POLICY__FEATURES", "sentences"),)  # the memory compares situations by the encoder, too
PATIENT = (("LEARNER__TIMEOUT", "864000"), ("LEARNER__PAUSE", "false"))  # other jobs may take most of the machine
ONCE = 10**6  # events: one cycle, at the end
NOT_RUN = "not run"
HARMED = 20  # runs with liars
Report = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One backtest, repeated with `seeds` seeds."""

    name: str
    data: str
    options: tuple[str, ...]
    seeds: int = 3
    settings: tuple[tuple[str, str], ...] = SENTENCES  # `SECTION__KEY` of the configuration


@dataclass(frozen=True)
class Row:
    """One figure of the table: of a run's reports, or of those against the clean run's."""

    what: str
    target: str
    run: str
    figure: Callable[[Report], float | None]
    against: str = ""
    unit: str = "%"


UNREMEMBERED = (("POLICY__MEMORY", "false"),)  # with the memory, too little is left to correct
QUICK = (*SENTENCES, ("LEARNER__PRESET", "quick"))  # three cycles, twenty times
TEN = ("--per-class", "10", "--learn-every", str(ONCE))
ONE = ("--per-class", "1", "--learn-every", str(ONCE))
WHOLE = ("--learn-every", str(ONCE))


def runs() -> list[Run]:
    """Of the issue's table, cheapest first within a set."""
    liars = ("--hostile", "0.1", "--sources", "10", "--hostile-sources", "2")
    return [
        Run("banking_ten", "banking77", TEN),
        Run("ha", "ha_intents_en", WHOLE),
        Run("clinc_ten", "clinc150", (*TEN, "--oos", "clinc150/oos.jsonl")),
        Run("banking_noise", "banking77", (*TEN, "--noise", "0.2")),
        Run("banking_typos", "banking77", (*TEN, "--typos", "0.1")),
        Run("banking_liars", "banking77", (*TEN, *liars)),
        Run("clinc_noise", "clinc150", (*TEN, "--noise", "0.2")),
        Run("clinc_typos", "clinc150", (*TEN, "--typos", "0.1")),
        Run("clinc_liars", "clinc150", (*TEN, *liars)),
        Run("banking_once", "banking77", ONE),
        Run("clinc_once", "clinc150", ONE),
        Run("banking_once_plain", "banking77", ONE, settings=()),
        Run("clinc_once_plain", "clinc150", ONE, settings=()),
        Run("banking_plain", "banking77", TEN, settings=()),
        Run("clinc_plain", "clinc150", TEN, settings=()),
        Run("clinc_sequence", "clinc150", ("--per-class", "10", "--learn-every", "150"), 1),
        # new domains go on bringing corrections: more than 1,000 after the first one's
        Run("clinc_after", "clinc150", ("--per-class", "20", "--learn-every", "300"), 1, UNREMEMBERED),
        Run("hwu", "hwu_home", WHOLE),
        Run(
            "banking_harm",
            "banking77",
            ("--limit", "300", "--learn-every", "100", "--holdout-limit", "300", *liars),
            HARMED,
            QUICK,
        ),
        Run("banking_whole", "banking77", WHOLE, 1),
    ]


def own_runs() -> list[Run]:
    """The same questions in small."""
    return [
        Run("desk", "desk", (*WHOLE, "--oos", "desk/outside.jsonl")),
        Run("desk_plain", "desk", WHOLE, settings=()),
        Run("desk_noise", "desk", (*WHOLE, "--noise", "0.2")),
        Run("desk_typos", "desk", (*WHOLE, "--typos", "0.1")),
    ]


def last(key: str) -> Callable[[Report], float | None]:
    return lambda report: report["points"][-1].get(key)


def within(*keys: str) -> Callable[[Report], float | None]:
    def found(report: Report) -> float | None:
        value: Any = report
        for key in keys:
            value = value.get(key) if value is not None else None
        return None if value is None else float(value)

    return found


def rows(own: bool) -> list[Row]:
    """The table."""
    both, off = last("accuracy"), last("accuracy_memory_off")
    bayes, memory, encoder = (within("baselines", name) for name in ("naive_bayes", "memory_only", "encoder"))

    def compared(run: str, what: str, first: str, second: str) -> list[Row]:
        return [
            Row(f"{what}: both", first, run, both),
            Row(f"{what}: memory off", second, run, off),
            Row(f"{what}: memory only", "both − 3", run, memory),
            Row(f"{what}: naive Bayes", "memory off − 10, under 80", run, bayes),
            Row(f"{what}: sentence encoder", "say where it wins", run, encoder),
            Row(f"{what}: calibration error", "≤ 5", run, within("calibration", "ece")),
            Row(f"{what}: right with 10 % questions", "≥ 95 (clinc150)", run, within("abstention", "helped_accuracy")),
        ]

    if own:
        return [
            *compared("desk", "desk", "", ""),
            Row("desk, the memory by the model's own features: both", "", "desk_plain", both),
            Row("desk: outside, AUROC", "≥ 90", "desk", within("abstention", "auroc")),
            Row("desk, 20 % wrong: both", "≤ 3 lost", "desk_noise", both, against="desk"),
            Row("desk, typing errors: both", "≤ 5 lost", "desk_typos", both, against="desk"),
        ]
    once, cycle = within("recall", "paraphrase", "before_cycle"), within("recall", "paraphrase", "after_cycle")
    return [
        *compared("banking_ten", "BANKING77, 10 a class", "≥ 85", "≥ 80"),
        Row("BANKING77, the memory by the model's own features: both", "≥ 85", "banking_plain", both),
        Row("BANKING77, by its own features: memory only", "both − 3", "banking_plain", memory),
        *compared("banking_whole", "BANKING77, whole", "≥ 90", "≥ 89"),
        *compared("ha", "HA intents, whole JSON", "", "≥ 80"),
        *compared("hwu", "HWU home, whole JSON", "", "≥ 65"),
        *compared("clinc_ten", "CLINC150, 10 a class", "", ""),
        Row("CLINC150, the memory by the model's own features: both", "", "clinc_plain", both),
        Row("CLINC150, by its own features: memory only", "both − 3", "clinc_plain", memory),
        Row("CLINC150: outside, AUROC", "≥ 90", "clinc_ten", within("abstention", "auroc")),
        Row("CLINC150 in sequence, memory off: against joint", "≤ 1 lost", "clinc_sequence", off, against="clinc_ten"),
        Row("CLINC150: backward transfer", "≥ −0.5", "clinc_sequence", within("forgetting", "bwt")),
        Row("corrected, memory off, 1,000 later", "≥ 95", "clinc_after", within("recall", "after_1000")),
        Row("flips a correction", "≤ 0.2", "clinc_sequence", within("collateral_flips_per_correction")),
        *(
            Row(
                f"other rows of a class after one correction, {when}, {name}{how}",
                f"≥ {least}",
                f"{data}_once{plain}",
                figure,
            )
            for plain, how in (("", ""), ("_plain", ", own features"))
            for data, name in (("banking", "BANKING77"), ("clinc", "CLINC150"))
            for when, least, figure in (("before a cycle", 60, once), ("after it", 80, cycle))
        ),
        *(
            Row(f"{told}: both, {name}", f"≤ {most} lost", f"{data}_{run}", both, against=f"{data}_ten")
            for told, most, run in (
                ("20 % wrong", 3, "noise"),
                ("10 % typing errors", 5, "typos"),
                ("10 % hostile from 2 of 10", 1, "liars"),
            )
            for data, name in (("banking", "BANKING77"), ("clinc", "CLINC150"))
        ),
        Row(f"harmful releases of {HARMED} runs with liars", "0", "banking_harm", within("harmful_releases"), unit=""),
    ]


def arguments(run: Run, data: Path, seed: int, report: Path) -> list[str]:
    """The command line of one backtest."""
    files = [data / run.data / f"{part}.jsonl" for part in ("stream", "holdout")]
    options = [str(data / option) if option.endswith(".jsonl") else option for option in run.options]
    return [
        sys.executable, "-m", "runtime", "backtest", str(files[0]), "--holdout", str(files[1]), *options,
        "--seed", str(seed), "--report", str(report),
    ]  # fmt: skip


def measure(run: Run, data: Path, seeds: int, fresh: bool) -> None:
    """What is not there yet."""
    for seed in range(run.seeds if run.seeds == HARMED else min(seeds, run.seeds)):
        report = path(run.name, seed)
        if report.is_file() and not fresh:
            continue
        print(f"{run.name}, seed {seed}", flush=True)
        part, told = (LOGS / f"{report.stem}.{kind}" for kind in ("part", "log"))
        with told.open("w", encoding="utf-8") as log:
            command = arguments(run, data, seed, part)
            settings = {f"CORRIGIBLE_{key}": value for key, value in (*run.settings, *PATIENT)}
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | settings, check=False)
        if done.returncode:
            print(f"  failed, see {told}", flush=True)
            continue
        part.replace(report)


def path(name: str, seed: int) -> Path:
    return OUT / f"{name}-{seed}.json"


def reports(name: str) -> dict[int, Report]:
    """By seed."""
    found = {int(file.stem.rsplit("-", 1)[1]): file for file in OUT.glob(f"{name}-*.json")}
    return {seed: json.loads(file.read_text(encoding="utf-8")) for seed, file in sorted(found.items())}


def figures(row: Row) -> list[float]:
    """One of each seed; a loss against the clean run of the same seed, if it is one."""
    clean = reports(row.against) if row.against else {}
    found = []
    for seed, report in reports(row.run).items():
        value = row.figure(report)
        if value is None or (row.against and seed not in clean):
            continue
        before = row.figure(clean[seed]) if row.against else None
        found.append(before - value if before is not None else value)
    return found


def table(own: bool) -> list[str]:
    """Markdown. Of what was not run there is a row that says so."""
    lines = ["| what | target | median | smallest to largest | runs |", "|---|---|---|---|---|"]
    for row in rows(own):
        found = figures(row)
        shown = (NOT_RUN, "", "0") if not found else (
            _number(statistics.median(found), row), f"{_number(min(found), row)} to {_number(max(found), row)}", str(len(found)),
        )  # fmt: skip
        lines.append(f"| {row.what} | {row.target} | {' | '.join(shown)} |")
    return lines


def _number(value: float, row: Row) -> str:
    shown = f"{value * 100:.2f} %" if row.unit and abs(value) < 0.005 else f"{value * 100:.1f} %"
    lost = " lost" if row.against else ""
    return f"{shown}{lost}" if row.unit else f"{value:g}"


def record(lines: Sequence[str]) -> None:
    """Put the table between its markers. A row without a report here keeps what stood there."""
    text = RESULTS.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    stood, tail = rest.split(END)
    kept = {_what(line): line for line in stood.splitlines() if line.startswith("|")}
    lines = [kept.get(_what(line), line) if NOT_RUN in line else line for line in lines]
    told = (
        f"`make evaluate`, last of {date.today()}, SmolLM2-135M on the CPU, the given holdouts; each figure of all seeds that were"
        " run; a row without a report in `reports/` is an earlier day's (the rows above say which):"
    )
    RESULTS.write_text("\n".join([head + BEGIN, told, "", *lines, END + tail]), encoding="utf-8")


def _what(line: str) -> str:
    return "|".join(line.split("|")[:3])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=REAL)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fresh", action="store_true", help="run again what was run")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--record", action="store_true", help="write the table into RESULTS.md")
    chosen = parser.parse_args()
    own = not (chosen.data / "banking77").is_dir()
    for folder in (OUT, LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    for run in own_runs() if own else runs():
        if not chosen.table and (not chosen.only or run.name in chosen.only):
            measure(run, OWN if own else chosen.data, chosen.seeds, chosen.fresh)
    lines = table(own)
    print("\n".join(lines))
    if chosen.record:
        record(lines)


if __name__ == "__main__":
    main()
