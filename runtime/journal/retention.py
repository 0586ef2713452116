"""What is older than it is kept, and nobody ever put a word to, goes: never a decision that was corrected, rated or learnt from.

Kept for ever: people's words, what they were said about (decision, percept, commands, outcomes and the messages that woke it),
releases, what has no end yet with its messages, and the newest message of every topic. The hash chain stays whole: a removed row leaves its digest
in its link as long as other rows of that link are there; of links that are wholly gone one a row of them stays, for its hash.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from runtime.errors import Unavailable
from runtime.journal.chain import COLUMNS, covered, digest
from runtime.journal.rows import Row, json_of

if TYPE_CHECKING:
    from runtime.journal import Journal

LINKS, ROWS = 500, 2000  # looked at together: one transaction
PAUSE = 0.2  # seconds between two of them
LOOK = 3600.0  # seconds between two looks
RESUMED = 3600.0  # seconds after which a situation that is not decided never will be
DAY = 86_400.0  # seconds
KEY = "retention"  # the journal's note: the last link that was looked at
WHY = "older than [journal] keep_days, and nobody put a word to it"
log = structlog.get_logger("journal")
ORDER = (
    "outcome",
    "command",
    "decision",
    "percept",
    "observation",
    "quarantined",
)  # a row refers to those of later tables

CAUSES = "percept p, json_each(p.body, '$.causes') cause"
SPOKEN_OF = f"""SELECT DISTINCT cause.value FROM feedback f JOIN decision d ON d.id = f.decision_id JOIN {CAUSES}
    WHERE p.id = d.percept_id"""
ENDED = """EXISTS (SELECT 1 FROM outcome o WHERE o.decision_id = d.id)
    AND NOT EXISTS (SELECT 1 FROM command c WHERE c.decision_id = d.id AND coalesce(
        (SELECT o.status FROM outcome o WHERE o.command_id = c.id ORDER BY o.seq DESC LIMIT 1), '')
        IN ('', 'held', 'sending', 'uncertain'))"""
OPEN = f"""SELECT p.seq, cause.value FROM {CAUSES} LEFT JOIN decision d ON d.percept_id = p.id
    WHERE p.at < ? AND NOT ({ENDED})"""
LAST = f"""SELECT cause.value FROM {CAUSES} WHERE p.id IN (
    SELECT id FROM percept WHERE seq = (SELECT max(seq) FROM percept)
    UNION SELECT percept_id FROM decision WHERE seq = (SELECT max(seq) FROM decision)
    UNION SELECT percept_id FROM decision d JOIN command c ON c.decision_id = d.id
        WHERE c.seq = (SELECT max(seq) FROM command)
    UNION SELECT percept_id FROM decision d JOIN outcome o ON o.decision_id = d.id
        WHERE o.seq = (SELECT max(seq) FROM outcome))"""
EPISODES = f"""SELECT d.id, d.seq, p.seq FROM decision d JOIN percept p ON p.id = d.percept_id
    WHERE d.seq BETWEEN ? AND ? AND NOT EXISTS (SELECT 1 FROM feedback f WHERE f.decision_id = d.id) AND {ENDED}"""
UNDECIDED = """SELECT p.seq FROM percept p WHERE p.seq BETWEEN ? AND ?
    AND NOT EXISTS (SELECT 1 FROM decision d WHERE d.percept_id = p.id)
    AND p.at < (SELECT d.at FROM decision d WHERE d.scope = p.scope ORDER BY d.seq DESC LIMIT 1) - ?"""
BEYOND = (
    """SELECT p.seq FROM percept p JOIN decision d ON d.percept_id = p.id WHERE p.seq BETWEEN ? AND ? AND d.seq > ?"""
)
OBSERVED = """SELECT o.seq, o.id FROM observation o WHERE o.seq BETWEEN ? AND ? AND o.perceived = 1
    AND EXISTS (SELECT 1 FROM observation n WHERE n.topic = o.topic AND n.seq > o.seq)"""


Rows = dict[str, set[int]]  # table -> seq


@dataclass
class Plan:
    """One batch: what goes, as statements of one transaction."""

    link: int  # everything up to this one was looked at
    rows: list[Row] = field(default_factory=list)
    removed: int = 0


def plan(connection: sqlite3.Connection, before: float) -> Plan | None:
    """The next batch of what was committed before this time (UTC seconds); None if nothing is left to look at."""
    noted = connection.execute("SELECT value FROM metadata WHERE key = ?", (KEY,)).fetchone()
    start = int(msgspec.json.decode(noted[0])) if noted else 0
    links, latest = _old(connection, start, before)
    if not links:
        return None
    made = Plan(link=links[-1][0])
    going, later = _going(connection, _ranges(links), latest)
    if any(going.values()):
        _take_out(connection, made, links, going)
    made.rows.append(
        (
            "INSERT INTO metadata VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            {"key": KEY, "value": json_of(_begin(links, later))},
        )
    )
    return made


def _old(connection: sqlite3.Connection, start: int, before: float) -> tuple[list[Any], float]:
    """The next links, up to the first that is younger, and their time: by the latest time of any link so far, for a clock may have been behind. No
    more than one transaction should take, for others wait for it."""
    (latest,) = connection.execute("SELECT coalesce(max(at), 0) FROM chain WHERE seq <= ?", (start,)).fetchone()
    found, total = [], 0
    sql = "SELECT seq, covers, gone, at FROM chain WHERE seq > ? ORDER BY seq LIMIT ?"
    for seq, covers, gone, at in connection.execute(sql, (start, LINKS)):
        if max(latest, at) >= before or total >= ROWS:
            break
        latest = max(latest, at)
        found.append((seq, covers, gone))
        total += sum(last - first + 1 for table, first, last in covered(covers) if table in COLUMNS)
    return found, latest


def _begin(links: list[Any], later: Rows) -> int:
    """The link after which the next batch begins: before what belongs together and reached beyond this one, if that is not where
    this one began."""
    for number, (_, covers, _) in enumerate(links):
        if any(first <= seq <= last for table, first, last in covered(covers) for seq in later.get(table, ())):
            return int(links[number - 1 if number else -1][0])
    return int(links[-1][0])


def _ranges(links: list[Any]) -> dict[str, tuple[int, int]]:
    """Of every table the first and last row that these links cover."""
    found: dict[str, tuple[int, int]] = {}
    for _, covers, _ in links:
        for table, first, last in covered(covers):
            found[table] = (min(first, found.get(table, (first, 0))[0]), last)
    return found


def _going(connection: sqlite3.Connection, ranges: dict[str, tuple[int, int]], at: float) -> tuple[Rows, Rows]:
    """What goes, and what will once the rest of it was reached; `at`: the time of these rows. A decision goes with all that belongs to it, or not at all; the
    last row of a table stays, for its number must not be given again."""
    going: Rows = {table: set() for table in ORDER}
    later: Rows = {table: set() for table in ORDER}
    nothing = (1, 0)
    newest = {table: connection.execute(f"SELECT max(seq) FROM {table}").fetchone()[0] for table in ORDER}

    def inside(table: str, seqs: list[int]) -> bool:
        first, last = ranges.get(table, nothing)
        return all(first <= seq <= last for seq in seqs)

    for id, decision, percept in connection.execute(EPISODES, ranges.get("decision", nothing)).fetchall():
        parts = {"decision": [decision], "percept": [percept]}
        for table in ("command", "outcome"):
            found = connection.execute(f"SELECT seq FROM {table} WHERE decision_id = ?", (id,)).fetchall()
            parts[table] = [seq for (seq,) in found]
        if any(newest[table] in seqs for table, seqs in parts.items()):
            continue
        whole = all(inside(table, seqs) for table, seqs in parts.items())
        for table, seqs in parts.items():
            (going if whole else later)[table].update(seqs)
    percepts = ranges.get("percept", nothing)
    beyond = connection.execute(BEYOND, (*percepts, ranges.get("decision", nothing)[1]))
    later["percept"].update(seq for (seq,) in beyond)
    going["percept"].update(seq for (seq,) in connection.execute(UNDECIDED, (*percepts, RESUMED)))
    kept = {id for sql in (SPOKEN_OF, LAST) for (id,) in connection.execute(sql)}
    kept |= {id for seq, id in connection.execute(OPEN, (at + RESUMED,)) if seq not in going["percept"]}
    observed = connection.execute(OBSERVED, ranges.get("observation", nothing))
    going["observation"].update(seq for seq, id in observed if id not in kept)
    first, last = ranges.get("quarantined", nothing)
    going["quarantined"].update(range(first, last + 1))
    for table, last_one in newest.items():
        going[table].discard(last_one)
    return going, later


def _take_out(connection: sqlite3.Connection, made: Plan, links: list[Any], going: Rows) -> None:
    """Out of the tables, and into the links what verifies the rest of them."""
    for table in ORDER:
        seqs = sorted(going[table])
        if not seqs:
            continue
        made.removed += len(seqs)
        made.rows.append(
            (f"DELETE FROM {table} WHERE seq IN (SELECT value FROM json_each(:seqs))", {"seqs": json_of(seqs)})
        )
        made.rows.append(
            (
                "INSERT INTO removed (at, name, link, rows, why) VALUES (:at, :name, :link, :rows, :why)",
                {"at": time.time(), "name": table, "link": made.link, "rows": len(seqs), "why": WHY},
            )
        )
    made.rows += _relinked(connection, links, going)


def _relinked(connection: sqlite3.Connection, links: list[Any], going: Rows) -> Iterator[Row]:
    """A link that is wholly gone keeps its hash only, and of a row of those only the last one is kept."""
    (earlier,) = connection.execute("SELECT max(seq) FROM chain WHERE seq < ?", (links[0][0],)).fetchone()
    bridge = connection.execute("SELECT seq FROM chain WHERE seq = ? AND covers = ''", (earlier,)).fetchone()
    previous = bridge[0] if bridge else None  # wholly gone, just before
    for seq, covers, gone in links:
        digests, left = _split(connection, covers, going)
        if left:
            previous = None
            if digests:
                told = [*(msgspec.msgpack.decode(gone) if gone else ()), *digests]
                yield (
                    "UPDATE chain SET gone = :gone WHERE seq = :seq",
                    {"gone": msgspec.msgpack.encode(told), "seq": seq},
                )
            continue
        if previous is not None:
            yield "DELETE FROM chain WHERE seq = :seq", {"seq": previous}
        if covers:
            yield "UPDATE chain SET covers = '', gone = x'' WHERE seq = :seq", {"seq": seq}
        previous = seq


def _split(connection: sqlite3.Connection, covers: str, going: Rows) -> tuple[list[tuple[str, int, bytes]], bool]:
    """The digests of a link's rows that go, and whether any row stays."""
    digests: list[tuple[str, int, bytes]] = []
    left = False
    for table, first, last in covered(covers):
        if table not in COLUMNS:
            left = True  # from before the chain
            continue
        sql = f"SELECT {COLUMNS[table]} FROM {table} WHERE seq BETWEEN ? AND ? ORDER BY seq"
        for row in connection.execute(sql, (first, last)):
            if row[0] in going.get(table, ()):
                digests.append((table, row[0], digest(table, row)))
            else:
                left = True
    return digests, left


async def regularly(journal: Journal, days: float) -> None:
    """Whenever something has become older than that, for ever; 0: never."""
    while days:
        removed = 0
        with suppress(Unavailable):  # somebody put a word to one of them meanwhile: it is looked at again
            while (found := await journal.prune(time.time() - days * DAY)) is not None:
                removed += found
                await asyncio.sleep(PAUSE)
        if removed:
            log.info("old rows were removed", rows=removed, days=days)
        await asyncio.sleep(LOOK)
