"""How answers look on a terminal: tables for people, one JSON value for programs (`--json`)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)
COLOURS = {
    "applied": "green", "sent": "green", "released": "green", "running": "cyan", "provisional": "yellow", "held": "yellow", "asked": "yellow",
    "observed": "dim", "none": "dim", "refused": "red", "denied": "red", "failed": "red", "expired": "red", "rejected": "red",
}  # fmt: skip


def as_json(value: Any) -> None:
    """Plain JSON on standard output, whatever the terminal is."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def progress(text: str) -> None:
    """One line of long work; on standard error, so that a report can be piped."""
    err.print(cell(text))


def table(columns: list[str], rows: list[list[Any]], *, title: str = "") -> None:
    """A table whose cells come from outside: nothing in them is taken as markup."""
    shown = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(cell(value) for value in row))
    out.print(shown)


def cell(value: Any) -> str:
    text = escape(clean(value))
    colour = COLOURS.get(text)
    return f"[{colour}]{text}[/]" if colour else text


def clean(value: Any) -> str:
    """Text that cannot steer the terminal: control characters become a visible sign."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "".join(c if c.isprintable() else "·" if c != "\n" else " " for c in str(value))


def line(label: str, value: Any) -> None:
    out.print(f"[bold]{escape(label):<12}[/] {cell(value)}")


def when(at: float | None) -> str:
    """A time as the clock on the wall shows it."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def percent(p: float | None) -> str:
    return "" if p is None else f"{100 * p:.1f} %"


def apprentice(actions: list[dict[str, Any]]) -> str:
    """`acts by itself: on (1 of 12 put right); in silence: dim (3 of 7 like people)`."""
    parts = []
    for acts, label in ((True, "acts by itself"), (False, "in silence")):
        told = [f"{row['action']} ({row['cases']})" for row in actions if row["acts"] == acts]
        if told:
            parts.append(f"{label}: {', '.join(told)}")
    return "; ".join(parts)
