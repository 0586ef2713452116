"""What the journal says, read once and read-only after the daemon is gone: the other half of what the checker compares."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from runtime.messages import Message

WAKING = (
    """SELECT o.payload FROM percept p, json_each(p.body, '$.causes') cause JOIN observation o ON o.id = cause.value"""
)
UNPERCEIVED = "SELECT id FROM observation WHERE perceived = 0"
UNDECIDED = "SELECT p.id FROM percept p LEFT JOIN decision d ON d.percept_id = p.id WHERE d.id IS NULL"
UNANSWERED = """SELECT d.id FROM decision d WHERE NOT EXISTS (SELECT 1 FROM command c WHERE c.decision_id = d.id)
    AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.decision_id = d.id)"""
OPEN = "SELECT c.id FROM command c WHERE NOT EXISTS (SELECT 1 FROM outcome o WHERE o.command_id = c.id)"

TAUGHT = "SELECT seq, adapter FROM decision WHERE adapter != 'base'"


class Commanded(Message, frozen=True, kw_only=True):
    id: str
    actuator: str
    value: str
    cause: str  # the observation that woke its percept
    at: float
    statuses: tuple[str, ...]  # of its outcomes, in order


class Facts(Message, frozen=True, kw_only=True):
    stored: tuple[tuple[str, bytes], ...]  # id and payload of every observation
    quarantined: tuple[bytes, ...]  # payloads
    waking: frozenset[bytes] = frozenset()  # payloads that a percept came of
    unperceived: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()  # percepts
    unanswered: tuple[str, ...] = ()  # decisions without command and outcome
    commands: tuple[Commanded, ...] = ()
    taught: tuple[tuple[int, str], ...] = ()  # decisions of an adapter: their place and its id


def read(path: Path) -> Facts:
    """Everything the checker asks for, in one read transaction."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:

        def column(sql: str) -> tuple[str, ...]:
            return tuple(value for (value,) in base.execute(sql))

        base.execute("BEGIN")
        return Facts(
            stored=tuple(base.execute("SELECT id, payload FROM observation")),
            quarantined=tuple(payload for (payload,) in base.execute("SELECT payload FROM quarantined")),
            waking=frozenset(payload for (payload,) in base.execute(WAKING)),
            unperceived=column(UNPERCEIVED),
            undecided=column(UNDECIDED),
            unanswered=column(UNANSWERED),
            commands=tuple(_commands(base)),
            taught=tuple(base.execute(TAUGHT)),
        )


def _commands(base: sqlite3.Connection) -> list[Commanded]:
    ends: dict[str, list[str]] = {}
    for command, status in base.execute(
        "SELECT command_id, status FROM outcome WHERE command_id IS NOT NULL ORDER BY seq"
    ):
        ends.setdefault(command, []).append(status)
    rows = base.execute(
        """SELECT c.id, c.actuator, c.action, coalesce(json_extract(p.body, '$.causes[0]'), ''), c.at
           FROM command c LEFT JOIN decision d ON d.id = c.decision_id LEFT JOIN percept p ON p.id = d.percept_id"""
    )
    return [
        Commanded(
            id=id, actuator=actuator, value=_value(action), cause=cause, at=at, statuses=tuple(ends.get(id, ()))
        )
        for id, actuator, action, cause, at in rows
    ]  # fmt: skip


def _value(action: str) -> str:
    arguments = json.loads(action).get("arguments", {})
    return str(next(iter(arguments.values()), ""))


def newest(path: Path) -> float:
    """The latest time an observation carries; 0 without any."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
        return float(base.execute("SELECT coalesce(max(at), 0) FROM observation").fetchone()[0])


def at_rest(path: Path) -> bool:
    """Whether everything that came in has its end. Asked while devices listen in the same process: it must not take long."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
        return not any(base.execute(f"{sql} LIMIT 1").fetchone() for sql in (UNPERCEIVED, UNDECIDED, UNANSWERED, OPEN))


def newest_decision(path: Path) -> tuple[str, str] | None:
    """Its id and scope."""
    found = _one(path, "SELECT id, scope FROM decision ORDER BY seq DESC LIMIT 1")
    return tuple(found) if found else None


def decisions(path: Path) -> int:
    """The place of the newest one."""
    return int((_one(path, "SELECT coalesce(max(seq), 0) FROM decision") or (0,))[0])


def decided_by(path: Path, adapter: str) -> bool:
    return _one(path, "SELECT 1 FROM decision WHERE adapter = ? LIMIT 1", adapter) is not None


def newest_cycle(path: Path) -> tuple[str, str, str]:
    """Id, state and reason; empty without any."""
    return _one(path, "SELECT id, state, reason FROM cycle ORDER BY seq DESC LIMIT 1") or ("", "", "")


def waiting(path: Path) -> int:
    """Percepts without a decision."""
    return int((_one(path, f"SELECT count(*) FROM ({UNDECIDED})") or (0,))[0])


def serving(path: Path) -> str:
    """The adapter of the newest release."""
    return str((_one(path, "SELECT adapter FROM release ORDER BY seq DESC LIMIT 1") or ("base",))[0])


def feedbacks(path: Path) -> int:
    return int((_one(path, "SELECT count(*) FROM feedback") or (0,))[0])


def _one(path: Path, sql: str, *values: str) -> Any:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as base:
        return base.execute(sql, values).fetchone()
