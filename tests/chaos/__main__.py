"""`python -m tests.chaos`: a run from the command line, a table at the end, and a failure that names its seed."""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.nemesis import OTHERS
from tests.chaos.run import Order, Result, run


def main() -> None:
    given = _arguments()
    faults = {"kill_agent": given.agent_kills, "kill_broker": given.broker_kills, **dict.fromkeys(OTHERS, given.others)}
    faults |= dict.fromkeys(filter(None, given.without.split(",")), 0)
    order = Order(given.events, faults, given.seed, given.broker, given.mutant)
    folder = Path(given.folder or tempfile.mkdtemp(prefix="chaos-"))
    result = asyncio.run(run(order, folder))
    show(result, folder)
    sys.exit(bool(result.broken))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--agent-kills", type=int, default=30)
    parser.add_argument("--broker-kills", type=int, default=30)
    parser.add_argument("--others", type=int, default=3, help="of every other fault, so many")
    parser.add_argument("--without", default="", help="other faults to leave out, with commas")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broker", choices=("mosquitto", "embedded"), default="mosquitto")
    parser.add_argument("--mutant", default="", help="plant this bug in the daemon; the run has to go red")
    parser.add_argument("--folder", default="", help="where everything is kept; default: a fresh temporary one")
    return parser.parse_args()


def show(result: Result, folder: Path) -> None:
    console, order = Console(width=140), result.order
    table = Table("invariant", "what it says", "", "detail")
    for finding in result.findings:
        colour = "red" if finding.state == "broken" else "green"
        table.add_row(finding.invariant, finding.title, f"[{colour}]{finding.state}[/{colour}]", finding.detail)
    console.print(table)
    kinds = sorted({fault.kind for fault in result.faults})
    for kind in kinds:
        these = [fault for fault in result.faults if fault.kind == kind]
        console.print(f"{kind} x{len(these)}: {these[-1].evidence or these[-1].skipped or 'NO EVIDENCE'}")
    console.print(", ".join(f"{name} {count}" for name, count in sorted(result.counts.items())))
    if result.serving:
        ordered = sorted(result.serving)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        console.print(
            f"kill -> serving again: p50 {statistics.median(ordered):.2f} s, p99 {p99:.2f} s of {len(ordered)}"
        )
    console.print(f"{order.events} events in {result.seconds:.0f} s, broker {order.broker}, everything in {folder}")
    if result.broken:
        console.print(f"[red]broken[/red]; again with --events {order.events} --seed {order.seed} and the same kills")


if __name__ == "__main__":
    main()
