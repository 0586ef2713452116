"""The named queries at ten million rows: none of them reads a whole table that grows with every message."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from runtime.journal import named_queries, opening

GROWING = {"observation", "percept", "decision", "command", "outcome"}  # with every message; people's words are few
NEWEST = {  # read backwards from the newest row, and stop at their limit
    "decisions", "corrected", "lived", "situations", "turns", "witnessed",
}  # fmt: skip


def aliases(sql: str) -> dict[str, str]:
    """What a plan's name stands for."""
    found = re.findall(r"(?:FROM|JOIN) (\w+)(?: (?!ON|WHERE|JOIN|LEFT|ORDER|GROUP|CROSS|LIMIT|UNION)(\w+))?", sql)
    return {alias or table: table for table, alias in found}


@pytest.mark.parametrize("name", sorted(named_queries()))
def test_no_query_reads_a_growing_table(name: str) -> None:
    sql = named_queries()[name]
    with closing(sqlite3.connect(":memory:")) as connection:
        opening.migrate(connection, Path("j.db"))
        values = dict.fromkeys(re.findall(r":(\w+)", sql), 1)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    names = aliases(sql)
    scans = [step for step in plan if step.startswith("SCAN") and names.get(step.split()[1]) in GROWING]
    scans = [step for step in scans if "observation_waiting" not in step and "outcome_uncertain" not in step]  # partial
    if name in NEWEST:
        assert re.search(r"seq DESC LIMIT", sql)
    else:
        assert scans == []
