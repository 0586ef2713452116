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

from tests.chaos import stores
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import OTHERS
from tests.chaos.run import RATE, Order, Result, Sample, hunt, run


def main() -> None:
    given = _arguments()
    faults = {"kill_agent": given.agent_kills, "kill_broker": given.broker_kills, **dict.fromkeys(OTHERS, given.others)}
    faults |= dict.fromkeys(filter(None, given.without.split(",")), 0)
    if given.mutants:
        sys.exit(hunt_all(given.broker, given.seed))
    events = int(given.duration * RATE) + 1 if given.duration else given.events
    order = Order(events, faults, given.seed, given.broker, given.mutant, duration=given.duration)
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
    parser.add_argument("--mutants", action="store_true", help="plant every bug in turn; each has to be found")
    parser.add_argument("--duration", type=float, default=0.0, help="a soak of so many seconds instead of --events")
    parser.add_argument("--folder", default="", help="where everything is kept; default: a fresh temporary one")
    return parser.parse_args()


def hunt_all(broker: str, seed: int) -> int:
    """A line a planted bug; how many were missed."""
    console, missed = Console(width=140), 0
    for name, mutant in MUTANTS.items():
        result = asyncio.run(hunt(name, Path(tempfile.mkdtemp(prefix=f"chaos-{name}-")), broker=broker, seed=seed))
        found = [finding.invariant for finding in result.broken]
        missed += mutant.finds not in found
        word = "[green]found[/green]" if mutant.finds in found else "[red]MISSED[/red]"
        console.print(f"{name}: {word} by {mutant.finds}; red: {', '.join(found) or 'nothing'}; {result.seconds:.0f} s")
    for name in stores.BUGS:
        said = stores.hunt(name)
        missed += not said
        console.print(f"{name}: {'[green]found[/green]' if said else '[red]MISSED[/red]'}: {said}")
    planted = len(MUTANTS) + len(stores.BUGS)
    console.print(f"{planted - missed} of {planted} planted bugs found; seed {seed}")
    return missed


def slope(samples: list[Sample]) -> str:
    """MB an hour over the longest life of the daemon, and the descriptors at its begin and end."""
    lives = [[s for s in samples if s.pid == pid] for pid in {s.pid for s in samples}]
    life = max(lives, key=lambda life: life[-1].at - life[0].at)
    life = life[len(life) // 4 :]  # it is still filling its caches at first
    hours = [s.at / 3600 for s in life]
    if len(life) < 3 or hours[0] == hours[-1]:
        return "no life was long enough to measure memory"
    grown = statistics.linear_regression(hours, [s.rss for s in life]).slope
    seconds = life[-1].at - life[0].at
    return f"memory {grown:+.1f} MB/h over {seconds:.0f} s, descriptors {life[0].descriptors} -> {life[-1].descriptors}"


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
        console.print(f"{kind} x{len(these)}: {these[-1].evidence or 'NO EVIDENCE'}")
    console.print(", ".join(f"{name} {count}" for name, count in sorted(result.counts.items())))
    if result.serving:
        ordered = sorted(result.serving)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        console.print(
            f"kill -> serving again: p50 {statistics.median(ordered):.2f} s, p99 {p99:.2f} s of {len(ordered)}"
        )
    if result.samples:
        console.print(slope(result.samples))
    console.print(f"{order.events} events in {result.seconds:.0f} s, broker {order.broker}, everything in {folder}")
    if result.broken:
        console.print(f"[red]broken[/red]; again with --events {order.events} --seed {order.seed} and the same kills")


if __name__ == "__main__":
    main()
