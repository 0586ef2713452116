"""`corrigible doctor`: the journal's invariants, one line each, with what is broken and how to mend it."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from msgspec import to_builtins

from runtime.cli import show
from runtime.errors import NotFound

if TYPE_CHECKING:
    from runtime.config import Config

COLOURS = {"holds": "green", "ok": "green", "broken": "red"}


def examine(config: Config, *, json: bool) -> bool:
    """Show every finding; True if no invariant is broken."""
    from runtime.journal import doctor
    from runtime.journal.anchor import Anchors

    path = config.agent.data / "journal.db"
    if not path.exists():
        raise NotFound(f"there is no journal at {path}; start the daemon once, or name its configuration with --config")
    found: Any = doctor.examine(path, Anchors.of(config.agent.data, config.journal.anchors))
    findings = [to_builtins(f) for f in (asyncio.run(found) if inspect.iscoroutine(found) else found)]
    if json:
        show.as_json(findings)
    else:
        columns = list(findings[0]) if findings else ["nothing to examine"]
        show.table(columns, [[finding[column] for column in columns] for finding in findings])
    return not any("broken" in finding.values() for finding in findings)
