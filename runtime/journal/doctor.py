"""Doctor: the invariants of the loop as questions to a journal, read-only, so that it may run beside the daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from runtime.errors import Corrupt
from runtime.journal import verify
from runtime.journal.anchor import Anchors
from runtime.journal.rescue import LOST_KEY, Lost
from runtime.journal.rows import TABLES
from runtime.marks import Counter
from runtime.messages import Message

State = Literal["ok", "broken", "not checkable"]
LATE = 120.0  # seconds that a running daemon has to notice a hole
CHAINED = 7  # the schema from which on there is a hash chain
NAMED = 3  # rows a finding names


class Finding(Message, frozen=True, kw_only=True):
    """What became of one invariant."""

    invariant: str
    title: str
    state: State
    detail: str


# Each query yields (id, what is wrong with it). Work is looked at by order where there is one: decisions of a scope are
# made in turn, so a percept is forgotten once a later one is decided. Elsewhere a running daemon has 60 s for it.
CHECKS: tuple[tuple[str, str, str], ...] = (
    (
        "I2",
        "no message is stored twice",
        """SELECT id, 'stored ' || count(*) || ' times' FROM observation GROUP BY id HAVING count(*) > 1
           UNION ALL SELECT percept_id, 'decided ' || count(*) || ' times' FROM decision GROUP BY percept_id HAVING count(*) > 1""",
    ),
    (
        "I4",
        "what came in was perceived and decided",
        """WITH last AS (SELECT n.scope, max(p.seq) AS seq FROM decision n JOIN percept p ON p.id = n.percept_id GROUP BY n.scope)
           SELECT id, 'never perceived' FROM observation
           WHERE perceived = 0 AND at < (SELECT max(at) FROM observation WHERE perceived = 1) - 60
           UNION ALL SELECT p.id, 'never decided' FROM percept p JOIN last l ON l.scope = p.scope AND p.seq < l.seq
           LEFT JOIN decision d ON d.percept_id = p.id WHERE d.id IS NULL""",
    ),
    (
        "I5",
        "every command has its decision and an end, every decision an outcome",
        """SELECT c.id, 'the decision does not say so' FROM command c LEFT JOIN decision d ON d.id = c.decision_id
           WHERE d.id IS NULL OR NOT EXISTS (SELECT 1 FROM json_each(d.body, '$.actions') a WHERE json(a.value) = json(c.action))
           UNION ALL SELECT c.id, 'neither sent nor expired' FROM command c
           WHERE c.expires_at < (SELECT max(at) FROM decision) - 60 AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.command_id = c.id)
           UNION ALL SELECT d.id, 'neither acted on nor refused' FROM decision d
           WHERE d.at < (SELECT max(at) FROM decision) - 60
             AND NOT EXISTS (SELECT 1 FROM command c WHERE c.decision_id = d.id)
             AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.decision_id = d.id)""",
    ),
    (
        "I6",
        "no command took effect twice",
        """SELECT command_id, 'applied ' || count(*) || ' times' FROM outcome
           WHERE status = 'applied' AND command_id IS NOT NULL GROUP BY command_id HAVING count(*) > 1
           UNION ALL SELECT command_id, 'is told once, and was about to leave ' || count(*) || ' times' FROM outcome
           WHERE status = 'sending' GROUP BY command_id HAVING count(*) > 1""",
    ),
    (
        "I7",
        "nothing was sent after it had expired",
        """SELECT c.id, 'made after its expiry, yet ' || o.status FROM command c JOIN outcome o ON o.command_id = c.id
           WHERE o.status IN ('sent', 'applied') AND c.at >= c.expires_at""",
    ),
    (
        "I8",
        "every feedback belongs to a decision",
        """SELECT f.id, 'on no decision' FROM feedback f LEFT JOIN decision d ON d.id = f.decision_id WHERE d.id IS NULL""",
    ),
    (
        "I9",
        "every decision names a version that was released",
        """SELECT d.id, 'names ' || d.adapter FROM decision d WHERE d.adapter <> 'base'
           AND NOT EXISTS (SELECT 1 FROM release r WHERE r.adapter = d.adapter)""",
    ),
    (
        "I11",
        "no effect without a command written before it",
        """SELECT o.id, o.status || ' without a command' FROM outcome o LEFT JOIN command c ON c.id = o.command_id
           WHERE o.status IN ('sent', 'applied') AND c.id IS NULL""",
    ),
)
OUTSIDE = (
    ("I1", "every acknowledged message is here", "needs the broker's or the producer's own history"),
    ("I10", "memory, queues and files stay within bounds", "needs a running daemon; see /metrics"),
)


def examine(path: Path, anchors: Anchors | None = None) -> list[Finding]:
    """One finding an invariant, in their order; `anchors`: by default those beside the journal. Raises Corrupt if the file cannot
    be read as a journal at all."""
    anchors = anchors or Anchors.of(path.parent)
    said = partial(anchors.wrong, anchors.lines())
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN")  # one moment of a journal that may be in use
            findings = [_finding(id, title, connection.execute(sql).fetchall()) for id, title, sql in CHECKS]
            findings.append(
                _finding("I3", "no number of a producer's counter is missing unnoticed", list(_unnoticed(connection)))
            )
            lost = _lost(connection)
            damage = _finding(
                "I12", "no row is lost or damaged unknown to anybody", list(_damage(connection, lost, said))
            )
            findings.append(replace(damage, detail=damage.detail or "; ".join(one.told for one in lost)))
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise Corrupt(f"{path} cannot be read as a journal: {error}; restore a copy or move it away") from None
    findings += [Finding(invariant=id, title=title, state="not checkable", detail=why) for id, title, why in OUTSIDE]
    return sorted(findings, key=lambda finding: int(finding.invariant[1:]))


def missing(path: Path, told: Collection[str]) -> list[str]:
    """I1 by a producer's own history: which of the ids it was told are safe the journal does not have."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        kept = {id for (id,) in connection.execute("SELECT id FROM observation UNION ALL SELECT id FROM feedback")}
    return sorted(set(told) - kept)


def _finding(id: str, title: str, wrong: list[tuple[str, str]]) -> Finding:
    if not wrong:
        return Finding(invariant=id, title=title, state="ok", detail="")
    named = "; ".join(f"{row} {what}" for row, what in wrong[:NAMED])
    more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    return Finding(invariant=id, title=title, state="broken", detail=named + more)


def _unnoticed(connection: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Holes in what was heard that no gap names, though the next number came more than LATE before the newest message."""
    counters: dict[tuple[str, str], Counter] = {}
    times: dict[tuple[str, str, int], float] = {}
    for producer, boot, upto in connection.execute("SELECT producer, boot, upto FROM producer"):
        counters[producer, boot] = Counter.at(upto)
    for producer, boot, number, at in connection.execute("SELECT producer, boot, number, at FROM heard"):
        counters.setdefault((producer, boot), Counter.at()).hear(number)
        times[producer, boot, number] = at
    for producer, boot, first, last, at in connection.execute("SELECT producer, boot, first, last, at FROM gap"):
        counters.setdefault((producer, boot), Counter.at()).runs.add(first, last)
        times.setdefault((producer, boot, first), at)
    (newest,) = connection.execute(
        "SELECT max(at) FROM observation WHERE seq > (SELECT max(seq) FROM observation) - 1000"
    ).fetchone()
    for place, counter in counters.items():
        for first, last in counter.holes():
            if (newest or 0.0) - times[(*place, last + 1)] > LATE:
                yield f"{place[0]} (boot {place[1]})", f"lacks {first} to {last}"


def _lost(connection: sqlite3.Connection) -> list[Lost]:
    """What is known to be lost."""
    found = connection.execute("SELECT value FROM metadata WHERE key = ?", (LOST_KEY,)).fetchone()
    return msgspec.json.decode(found[0], type=list[Lost]) if found else []


def _damage(
    connection: sqlite3.Connection, lost: Sequence[Lost], said: Callable[..., Iterator[str]]
) -> Iterator[tuple[str, str]]:
    """What SQLite itself finds, rows that are gone (`seq` has no gaps), rows whose JSON is of another message, and what the hash
    chain says."""
    chained = connection.execute("PRAGMA user_version").fetchone()[0] >= CHAINED
    removed = dict(connection.execute("SELECT name, sum(rows) FROM removed GROUP BY name")) if chained else {}
    holes = lost[-1].holes if lost else {}  # the newest counts the older ones, too
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield "the file:", str(line)
    for table in TABLES:
        rows, last = connection.execute(f"SELECT count(*), coalesce(max(seq), 0) FROM {table}").fetchone()
        lacking = last - rows - holes.get(table, 0) - removed.get(table, 0)
        if lacking > 0:
            yield table, f"lacks {lacking} rows"
        sql = f"SELECT id FROM {table} WHERE NOT json_valid(body) OR json_extract(body, '$.id') <> id"
        for (id,) in connection.execute(sql):
            yield f"{table} {id}", "differs from its own JSON"
    if chained:
        yield from verify.wrong(connection, said)
