"""JOURNAL: the truth. Every message is committed here before the next stage acts on it, and found again after a crash."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import msgspec

from runtime.errors import Corrupt, NotFound
from runtime.journal.rows import json_of, row
from runtime.journal.writer import Writer
from runtime.messages import (
    Action,
    Command,
    Cycle,
    Decision,
    Example,
    Feedback,
    Message,
    Observation,
    Outcome,
    Percept,
    Quarantined,
    Release,
)
from runtime.payload import quarantined_feedback

SCHEMA_VERSION = 3
CURVE_WINDOW = 50  # judged decisions an accuracy point of the page looks back over
M = TypeVar("M", bound=Message)


def named_queries() -> dict[str, str]:
    """queries.sql by name."""
    parts = re.split(r"^-- name: (\w+)\n", _sql("queries.sql"), flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _sql(name: str) -> str:
    return files("runtime.journal").joinpath(name).read_text(encoding="utf-8")


class Journal:
    """One SQLite file. `async with Journal.open(path) as journal`."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._writer = Writer(connection)
        self._queries = named_queries()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Journal]:
        """Open, migrate, close at the end of the block. Raises Corrupt if the file is no journal of ours."""
        async with aiosqlite.connect(path, isolation_level=None) as connection:
            try:
                await connection.execute("PRAGMA journal_mode = WAL")
                await connection.execute("PRAGMA synchronous = FULL")
                await connection.execute("PRAGMA foreign_keys = ON")
                await _migrate(connection, path)
            except aiosqlite.DatabaseError as error:
                raise Corrupt(f"{path} cannot be opened as a journal: {error}; move it away to start afresh") from None
            journal = cls(connection)
            try:
                yield journal
            finally:
                await journal._writer.close()

    @property
    def healthy(self) -> bool:
        """False after a commit failed, until one succeeds again."""
        return self._writer.healthy

    # --- writing ------------------------------------------------------------------------------------------------

    async def put(self, *messages: Message) -> int:
        """Store messages, all or none; the number of those that were new. Returns when they are durable."""
        return await self._writer.put([row(message) for message in messages])

    async def put_feedback(self, feedback: Feedback) -> int:
        """Store feedback on a decision. An unknown decision: NotFound, and the feedback is kept in quarantine."""
        if await self.decision(feedback.decision_id) is not None:
            return await self.put(feedback)
        reason = f"there is no decision {feedback.decision_id[:80]!r}; take the id from the decision's message or `corrigible decisions`"
        await self.put(quarantined_feedback(feedback, reason))
        raise NotFound(reason)

    async def perceived(self, observation_ids: Sequence[str], *percepts: Percept) -> None:
        """Observations were absorbed and woke these percepts: one transaction."""
        marks = [("UPDATE observation SET perceived = 1 WHERE id = :id", {"id": id}) for id in observation_ids]
        await self._writer.put([*(row(percept) for percept in percepts), *marks])

    async def set_metadata(self, key: str, value: Any) -> None:
        sql = "INSERT INTO metadata VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
        await self._writer.put([(sql, {"key": key, "value": json_of(value)})])

    # --- what is unfinished -------------------------------------------------------------------------------------

    async def unperceived(self) -> list[Observation]:
        return [_observation(*found) for found in await self._rows("unperceived")]

    async def undecided(self) -> list[Percept]:
        return await self._all(Percept, "undecided")

    async def unacted(self) -> list[Decision]:
        return await self._all(Decision, "unacted")

    async def unsettled(self) -> list[tuple[Command, str]]:
        """Commands without an end, and their state: "" (never sent, or unknown) or "held"."""
        return [(msgspec.json.decode(body, type=Command), status) for body, status in await self._rows("unsettled")]

    # --- reading ------------------------------------------------------------------------------------------------

    async def decision(self, id: str) -> Decision | None:
        return await self._one(Decision, "decision", id=id)

    async def percept(self, id: str) -> Percept | None:
        return await self._one(Percept, "percept", id=id)

    async def feedback(self, id: str) -> Feedback | None:
        return await self._one(Feedback, "feedback", id=id)

    async def feedback_of(self, decision_id: str) -> list[Feedback]:
        return await self._all(Feedback, "feedback_of", id=decision_id)

    async def outcomes_of(self, decision_id: str) -> list[Outcome]:
        return await self._all(Outcome, "outcomes_of", id=decision_id)

    async def commands_of(self, decision_id: str) -> list[Command]:
        return await self._all(Command, "commands_of", id=decision_id)

    async def decisions(self, limit: int = 50, before: str | None = None, scope: str | None = None) -> list[Decision]:
        """Newest first, rehearsals left out; `before` is the id of the decision to go on from."""
        return await self._all(Decision, "decisions", limit=limit, before=before, scope=scope)

    async def last_decision(self, scope: str) -> Decision | None:
        found = await self.decisions(limit=1, scope=scope)
        return found[0] if found else None

    async def corrections(self) -> list[Example]:
        """The exact-match table: of every (scope, text) the newest correction or override, unless something else was
        accepted there since. The same rule as `CorrectionTable.learn`, over the whole past."""
        return [_example(found) for found in await self._rows("corrections")]

    async def examples(self, limit: int, disliked: bool = False) -> list[Example]:
        """What the learner may train on: the newest word on each decision, newest `limit` of them, oldest first. With
        `disliked` also the decisions whose newest word is a rating below 0, for objectives that learn from those."""
        return [_example(found) for found in await self._rows("examples", limit=limit, disliked=disliked)][::-1]

    async def example_on(self, decision_id: str) -> Example | None:
        """What the newest word on a decision teaches."""
        found = await self._rows("example_on", id=decision_id)
        return _example(found[0]) if found else None

    async def standing(
        self, *, decision_id: str = "", source: str = "", since: float = 0.0, until: float = math.inf
    ) -> list[str]:
        """Ids of the feedback that all of this is true of and that was not taken back."""
        found = await self._rows("standing", decision_id=decision_id, source=source, since=since, until=until)
        return [id for (id,) in found]

    async def forgotten(self) -> frozenset[str]:
        """Ids of the feedback that was taken back."""
        return frozenset(id for (id,) in await self._rows("forgotten"))

    async def feedback_since(self, at: float) -> int:
        return int((await self._rows("feedback_since", at=at))[0][0])

    async def complaints(self, adapter: str, *, settled: float, limit: int) -> list[bool]:
        """Whether people complained, of the newest decisions that a version and the memory made, oldest first; those that
        were made after `settled` only if somebody said something."""
        found = await self._rows("complaints", adapter=adapter, settled=settled, limit=limit)
        return [bool(complaint) for (complaint,) in reversed(found)]

    async def situations(self, until: float, among: int) -> list[tuple[str, str]]:
        """(scope, text) of what was to be decided on until a time, newest first, each once; of the newest `among`."""
        return [(scope, text) for scope, text in await self._rows("situations", until=until, among=among)]

    async def releases(self, lane: str = "default", limit: int = 50) -> list[Release]:
        return await self._all(Release, "releases", lane=lane, limit=limit)

    async def serving(self, lane: str = "default") -> Release | None:
        found = await self.releases(lane, limit=1)
        return found[0] if found else None

    async def cycles(self, limit: int = 20) -> list[Cycle]:
        return await self._all(Cycle, "cycles", limit=limit)

    async def cycle(self, id: str) -> Cycle | None:
        return await self._one(Cycle, "cycle", id=id)

    async def quarantined(self, limit: int = 50) -> list[Quarantined]:
        found = await self._rows("quarantine", limit=limit)
        return [
            msgspec.structs.replace(msgspec.json.decode(body, type=Quarantined), payload=payload)
            for body, payload in found
        ]

    async def last_observations(self) -> list[Observation]:
        """The newest of every topic: the state of the world."""
        return [_observation(*found) for found in await self._rows("last_observations")]

    async def metadata(self, key: str) -> Any:
        found = await self._rows("metadata", key=key)
        return msgspec.json.decode(found[0][0]) if found else None

    async def counts(self) -> dict[str, int]:
        tables = (
            "observation",
            "percept",
            "decision",
            "command",
            "outcome",
            "feedback",
            "cycle",
            "release",
            "quarantined",
        )
        return {table: int((await self._select(f"SELECT count(*) FROM {table}", {}))[0][0]) for table in tables}

    async def curve(self) -> list[tuple[int, float]]:
        """(judged decisions so far, share of right ones among the last CURVE_WINDOW of them), for the page."""
        right = [kind == "acceptance" or bool(same) for kind, same in await self._rows("judged")]
        step = max(1, len(right) // 100)
        ends = [*range(step, len(right), step), len(right)] if right else []
        return [(end, sum(right[max(0, end - CURVE_WINDOW) : end]) / min(end, CURVE_WINDOW)) for end in ends]

    async def _one(self, kind: type[M], query: str, **values: Any) -> M | None:
        found = await self._all(kind, query, **values)
        return found[0] if found else None

    async def _all(self, kind: type[M], query: str, **values: Any) -> list[M]:
        return [msgspec.json.decode(found[0], type=kind) for found in await self._rows(query, **values)]

    async def _rows(self, query: str, **values: Any) -> list[Any]:
        return await self._select(self._queries[query], values)

    async def _select(self, sql: str, values: dict[str, Any]) -> list[Any]:
        async with self._connection.execute(sql, values) as cursor:
            return list(await cursor.fetchall())


async def _migrate(connection: aiosqlite.Connection, path: Path) -> None:
    """Bring the file to SCHEMA_VERSION, each step in a transaction. Raises Corrupt for a file from the future."""
    async with connection.execute("PRAGMA user_version") as cursor:
        found = await cursor.fetchone()
    version = int(found[0]) if found else 0
    if version > SCHEMA_VERSION:
        raise Corrupt(
            f"{path} was written by a newer Corrigible (schema {version}, this one knows {SCHEMA_VERSION}); upgrade first"
        )
    for number, script in enumerate(("schema.sql", "schema_2.sql", "schema_3.sql"), start=1):
        if version < number:
            await connection.executescript(f"BEGIN; {_sql(script)} PRAGMA user_version = {number}; COMMIT;")


def _observation(body: str, payload: bytes) -> Observation:
    return msgspec.structs.replace(msgspec.json.decode(body, type=Observation), payload=payload)


def _example(found: Any) -> Example:
    id, scope, text, at, source, action, weight, correction, *more = found
    rejected, reward = more or (None, 1.0)
    return Example(
        id=id, scope=scope, text=text, at=at, source=source, weight=weight, correction=bool(correction),
        action=msgspec.json.decode(action, type=Action), reward=reward,
        rejected=None if rejected is None else msgspec.json.decode(rejected, type=Action),
    )  # fmt: skip


__all__ = ["Journal", "named_queries"]
