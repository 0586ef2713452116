"""JOURNAL: the truth. Every message is committed here before the next stage acts on it, and found again after a crash."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiosqlite
import msgspec

from runtime.errors import Corrupt, NotFound, Unwritable
from runtime.journal import retention
from runtime.journal.ballast import NAME as BALLAST
from runtime.journal.ballast import Ballast
from runtime.journal.chain import Chain, Link
from runtime.journal.opening import migrate, prepare
from runtime.journal.rescue import LOST_KEY, Lost
from runtime.journal.rows import Row, json_of, row
from runtime.journal.writer import Writer
from runtime.messages import (
    Action,
    Command,
    Cycle,
    Decision,
    Example,
    Feedback,
    Forgotten,
    Gap,
    Lived,
    Message,
    Observation,
    Outcome,
    Percept,
    Quarantined,
    Release,
    Turn,
    Witnessed,
)
from runtime.payload import quarantined_feedback

COMMANDED = 100  # newest commands of an actuator that are looked at again after a restart
TURNS_PAGE = 1000  # decisions read at once, so that nobody who writes waits long
AGAIN = 0.5  # seconds between two tries while the disk takes nothing
TRANSITIONS = 10_000  # changes of how the daemon stands that are kept; a flapping device makes a few a minute
CURVE_WINDOW = 50  # judged decisions an accuracy point of the page looks back over
M = TypeVar("M", bound=Message)


class Settled(NamedTuple):
    """What is known of one counter up to `upto`: every number was heard, or a gap names it."""

    producer: str
    boot: str
    since: int  # the first number of which this is news
    upto: int
    gaps: tuple[Gap, ...]  # new ones, then those that were filled


def _metadatum(key: str, value: Any) -> Row:
    sql = "INSERT INTO metadata VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    return sql, {"key": key, "value": json_of(value)}


def named_queries() -> dict[str, str]:
    """queries.sql by name."""
    parts = re.split(r"^-- name: (\w+)\n", _sql("queries.sql"), flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def _sql(name: str) -> str:
    return files("runtime.journal").joinpath(name).read_text(encoding="utf-8")


class Journal:
    """One SQLite file. `async with Journal.open(path) as journal`."""

    def __init__(self, writer: Writer, reader: aiosqlite.Connection, ballast: Ballast) -> None:
        self._writer = writer
        self._reader = reader
        self._ballast = ballast
        self._queries = named_queries()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *, ballast: int = 0) -> AsyncIterator[Journal]:
        """Open, migrate, close at the end of the block. `ballast`: MiB set aside for a full disk. Raises Corrupt if the file is
        no journal of ours, Unavailable if nothing would be durable there."""
        async with aiosqlite.connect(path, isolation_level=None) as connection:
            execute: Any = connection._execute
            try:
                await execute(prepare, connection._conn, path)
                await execute(migrate, connection._conn, path)
                chain = await execute(Chain, connection._conn)
            except aiosqlite.DatabaseError as error:
                raise Corrupt(f"{path} cannot be opened as a journal: {error}; move it away to start afresh") from None
            async with aiosqlite.connect(path, isolation_level=None) as reader:  # it does not wait for commits
                await reader.execute("PRAGMA query_only = ON")
                held = Ballast(path.with_name(BALLAST), ballast)
                writer = Writer(connection, path, held, chain)
                try:
                    yield cls(writer, reader, held)
                finally:
                    await writer.close()

    @property
    def healthy(self) -> bool:
        """False after a commit failed, until one succeeds again."""
        return self._writer.healthy

    @property
    def alive(self) -> bool:
        """Somebody writes, or tries to."""
        return self._writer.alive

    @property
    def head(self) -> Link:
        """The newest link of the hash chain."""
        return self._writer.head

    @property
    def low(self) -> bool:
        """The disk is full: no more is taken in than has to be."""
        return self._ballast.low

    # --- writing ------------------------------------------------------------------------------------------------

    async def put(self, *messages: Message, patient: bool = False) -> int:
        """Store messages, all or none; the number of those that were new. Returns when they are durable. Raises Unavailable, or
        Unwritable while the disk takes nothing; `patient`: it waits until it does instead."""
        return await self._put([row(message) for message in messages], patient=patient)

    async def _put(self, rows: Sequence[Row], *, patient: bool) -> int:
        while True:
            try:
                return await self._writer.put(rows)
            except Unwritable:
                if not patient:
                    raise
            await asyncio.sleep(AGAIN)

    async def put_numbered(self, message: Observation | Quarantined, producer: str, boot: str, number: int) -> int:
        """As `put`; and that this number of the producer's counter was heard, in the same transaction. What is settled is not
        noted again, unless a gap still waits for it."""
        place = {"producer": producer, "boot": boot, "number": number, "at": message.at}
        heard = """INSERT INTO heard SELECT :producer, :boot, :number, :at WHERE NOT EXISTS (
              SELECT 1 FROM producer WHERE producer = :producer AND boot = :boot AND upto >= :number)
            OR EXISTS (SELECT 1 FROM gap WHERE filled IS NULL AND producer = :producer AND boot = :boot
              AND first <= :number AND last >= :number) ON CONFLICT DO NOTHING"""
        return await self._writer.put([row(message), (heard, place)])

    async def settle(self, counters: Iterable[Settled]) -> None:
        """Gaps and marks of these counters, in one transaction. What was heard up to a mark is kept no longer, except what an open
        gap is filled with."""
        mark = """INSERT INTO producer VALUES (:producer, :boot, :upto) ON CONFLICT (producer, boot)
            DO UPDATE SET upto = excluded.upto WHERE excluded.upto > upto"""
        gone = """DELETE FROM heard WHERE producer = :producer AND boot = :boot AND number BETWEEN :since AND :upto
            AND NOT EXISTS (SELECT 1 FROM gap g WHERE g.filled IS NULL AND g.producer = :producer AND g.boot = :boot
              AND g.first <= number AND g.last >= number)"""
        rows = []
        for one in counters:
            place = {"producer": one.producer, "boot": one.boot, "since": one.since, "upto": one.upto}
            rows += [*(row(gap) for gap in one.gaps), (mark, place), (gone, place)]
        if rows:
            await self._put(rows, patient=True)

    async def prune(self, before: float) -> int | None:
        """Remove a batch of what was committed before this time and may go (`retention`): how many rows, None if nothing is left
        to look at."""
        execute: Any = self._reader._execute
        made: retention.Plan | None = await execute(retention.plan, self._reader._conn, before)
        if made is None:
            return None
        await self._put(made.rows, patient=True)
        return made.removed

    async def shed(self, counts: Mapping[tuple[str, int], int]) -> None:
        """Add to what was let go, by (class, minute since 1970)."""
        sql = """INSERT INTO shed VALUES (:name, :minute, :count) ON CONFLICT (name, minute)
            DO UPDATE SET count = count + excluded.count"""
        await self._writer.put(
            [(sql, {"name": name, "minute": minute, "count": count}) for (name, minute), count in counts.items()]
        )

    async def put_feedback(self, feedback: Feedback, *, instead: Forgotten | None = None, decided: bool = False) -> int:
        """Store feedback on a decision; with `instead`, take an older word back in the same transaction. An unknown decision:
        NotFound, and the feedback is kept in quarantine."""
        if decided or await self.decision(feedback.decision_id) is not None:
            return await self.put(feedback, *([instead] if instead is not None else []))
        reason = f"there is no decision {feedback.decision_id[:80]!r}; take the id from the decision's message or `corrigible decisions`"
        await self.put(quarantined_feedback(feedback, reason))
        raise NotFound(reason)

    async def perceived(self, observation_ids: Sequence[str], *percepts: Percept) -> None:
        """Observations were absorbed and woke these percepts: one transaction, for which it waits while the disk takes nothing."""
        mark = "UPDATE observation SET perceived = 1 WHERE id IN (SELECT value FROM json_each(:ids))"
        ids = msgspec.json.encode(observation_ids).decode()
        await self._put([*(row(percept) for percept in percepts), (mark, {"ids": ids})], patient=True)

    async def set_metadata(self, key: str, value: Any, *, patient: bool = False) -> None:
        await self._put([_metadatum(key, value)], patient=patient)

    async def add_transition(self, row: dict[str, Any]) -> None:
        """How the daemon stands has changed: a row of its own; the oldest of too many goes."""
        sql = """DELETE FROM metadata WHERE key > 'transition ' AND key <= (SELECT key FROM metadata
                 WHERE key > 'transition ' AND key < 'transition:' ORDER BY key DESC LIMIT 1 OFFSET :kept)"""
        added = _metadatum(f"transition {row['at']:017.6f}", row)
        await self._put([added, (sql, {"kept": TRANSITIONS})], patient=False)

    async def transitions(self, limit: int = 20) -> list[dict[str, Any]]:
        """The newest first."""
        return [msgspec.json.decode(value) for (value,) in await self._rows("transitions", limit=limit)]

    async def notices(self, limit: int = 20) -> list[dict[str, Any]]:
        """What a person ought to know, the newest first."""
        return [msgspec.json.decode(value) for (value,) in await self._rows("notices", limit=limit)]

    # --- what is unfinished -------------------------------------------------------------------------------------

    async def unperceived(self) -> list[Observation]:
        return [_observation(*found) for found in await self._rows("unperceived")]

    async def undecided(self) -> list[Percept]:
        return await self._all(Percept, "undecided")

    async def unacted(self) -> list[Decision]:
        return await self._all(Decision, "unacted")

    async def unsettled(self) -> list[tuple[Command, str]]:
        """Commands without an end, and their state: "" (never sent, or unknown), "held" or "sending"."""
        return [(msgspec.json.decode(body, type=Command), status) for body, status in await self._rows("unsettled")]

    async def uncertain(self, limit: int = 50) -> list[Command]:
        """Commands that may have been carried out and are not told again, newest first."""
        return await self._all(Command, "uncertain", limit=limit)

    async def uncertain_one(self, id: str) -> Command | None:
        """The command, if that is its state."""
        return await self._one(Command, "uncertain_one", id=id)

    async def commanded(self, actuators: Iterable[str]) -> list[Command]:
        """The newest commands of each of these that may have been sent, oldest first."""
        found = [await self._all(Command, "commanded", actuator=name, limit=COMMANDED) for name in sorted(actuators)]
        return sorted((command for commands in found for command in commands), key=lambda command: command.at)

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

    async def words(self, limit: int, disliked: bool = False) -> list[Example]:
        """As `examples`, but with the newest word of everybody who spoke about a decision: people may disagree."""
        return [_example(found) for found in await self._rows("words", limit=limit, disliked=disliked)][::-1]

    async def sources(self) -> dict[str, int]:
        """How much each source has said and not taken back, the most talkative first."""
        return {source: int(count) for source, count in await self._rows("sources")}

    async def example_on(self, decision_id: str) -> Example | None:
        """What the newest word on a decision teaches."""
        found = await self._rows("example_on", id=decision_id)
        return _example(found[0]) if found else None

    async def standing(
        self, *, decision_id: str = "", source: str = "", since: float = 0.0, until: float = math.inf
    ) -> list[str]:
        """Ids of the feedback that all of this is true of and that was not taken back; `decision_id` may also be the id of
        one feedback."""
        found = await self._rows("standing", decision_id=decision_id, source=source, since=since, until=until)
        return [id for (id,) in found]

    async def forgotten(self) -> frozenset[str]:
        """Ids of the feedback that was taken back."""
        return frozenset(id for (id,) in await self._rows("forgotten"))

    async def feedback_since(self, at: float) -> int:
        return int((await self._rows("feedback_since", at=at))[0][0])

    async def heard(self) -> list[tuple[str, str, int, int | None]]:
        """(producer, boot, settled up to, None) or (producer, boot, 0, a number beyond that or of an open gap)."""
        return [tuple(found) for found in await self._rows("heard")]

    async def gaps(self, limit: int = 1000) -> list[Gap]:
        """What never came, or late, newest first."""
        return await self._all(Gap, "gaps", limit=limit)

    async def open_gaps(self) -> list[Gap]:
        """What never came, by counter and number."""
        return await self._all(Gap, "open_gaps")

    async def let_go(self, since: float = 0.0) -> dict[str, int]:
        """How many messages of each class were shed since then, to the minute."""
        return dict(await self._rows("shed", since=int(since // 60)))

    async def learnt_at(self) -> float:
        """When the newest cycle began that came to an end, 0 if none did."""
        return float((await self._rows("learnt_at"))[0][0])

    async def lived(self, adapter: str, *, since: float = 0.0, settled: float, limit: int) -> list[Lived]:
        """The newest decisions that a version and the memory made, with what people said, oldest first; those that were made
        after `settled` only as far as people have come."""
        rows = await self._rows("lived", adapter=adapter, since=since, settled=settled, limit=limit)
        return [
            Lived(
                id=key[0], scope=key[1], text=key[2], action=msgspec.json.decode(key[3], type=Action),
                said=tuple(msgspec.json.decode(row[4], type=Feedback) for row in same if row[4]),
            )
            for key, same in groupby(rows, key=lambda row: row[:4])
        ]  # fmt: skip

    async def witnessed(self, scope: str, *, limit: int) -> list[list[Witnessed]]:
        """The newest decisions of a scope with what became of them, oldest first: each with every word on it (the one that
        counts first), or once without; without fallbacks, questions and what versions decided that were taken back."""
        rows = await self._rows("witnessed", scope=scope, limit=limit)
        return [[_witnessed(*row[1:]) for row in same] for _, same in groupby(rows, key=lambda row: row[0])]

    async def corrected(self, *, since: float, limit: int) -> list[bool]:
        """Whether people corrected it, of the newest decisions after `since` up to the last that somebody spoke of, oldest
        first."""
        found = await self._rows("corrected", since=since, limit=limit)
        return [bool(corrected) for (corrected,) in reversed(found)]

    async def turns(self, limit: int) -> list[Turn]:
        """The newest `limit` decisions as people took them, oldest first; rehearsals left out."""
        found: list[Any] = []
        while len(found) < limit:
            before, size = found[-1][0] if found else 2**63 - 1, min(TURNS_PAGE, limit - len(found))
            page = await self._rows("turns", before=before, limit=size)
            found.extend(page)
            if len(page) < size:
                break
        return [_turn(*row) for row in reversed(found)]

    async def chosen_by_chance(self, limit: int, shared: Sequence[str] = ()) -> list[tuple[Decision, str, Feedback]]:
        """(decision, situation, word on it), oldest word first: of decisions that were not certain to come out as they did
        by themselves, or that two versions drew lots for (`shared`, ids)."""
        found = await self._rows("chosen_by_chance", limit=limit, shared=json_of(list(shared)))
        return [
            (msgspec.json.decode(decision, type=Decision), text, msgspec.json.decode(feedback, type=Feedback))
            for decision, text, feedback in reversed(found)
        ]

    async def situations(self, among: int, until: float = math.inf) -> list[tuple[str, str]]:
        """(scope, text) of the newest `among` percepts until a time, newest first, each once; rehearsals left out."""
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

    async def lost(self) -> str:
        """What became of the last damaged journal, "" if none ever was."""
        found = await self.metadata(LOST_KEY)
        return msgspec.convert(found[-1], Lost).told if found else ""

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
        # the last number, for counting reads the whole table
        found = [await self._select(f"SELECT coalesce(max(seq), 0) FROM {table}", {}) for table in tables]
        return {table: int(rows[0][0]) for table, rows in zip(tables, found, strict=True)}

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
        return list(await self._reader.execute_fetchall(sql, values))


def _observation(body: str, payload: bytes) -> Observation:
    return msgspec.structs.replace(msgspec.json.decode(body, type=Observation), payload=payload)


def _witnessed(
    at: float, action: str, status: Any, word: str, source: str, right: str | None, fields: str | None
) -> Witnessed:
    return Witnessed(
        at=at, action=msgspec.json.decode(action, type=Action), status=status, word=word, source=source,
        right=msgspec.json.decode(right, type=Action) if right else None,
        fields=msgspec.json.decode(fields) if fields else {},
    )  # fmt: skip


def _turn(
    _: int, id: str, at: float, scope: str, adapter: str, question: int, decided: str, right: str, rating: float | None,
    words: str, who: str,
) -> Turn:  # fmt: skip
    return Turn(
        decision=id, at=at, scope=scope, who=who, words=words, adapter=adapter, question=bool(question), decided=decided,
        right=right, rating=rating,
    )  # fmt: skip


def _example(found: Any) -> Example:
    id, scope, text, at, source, action, weight, correction, *more = found
    rejected, reward = more or (None, 1.0)
    return Example(
        id=id, scope=scope, text=text, at=at, source=source, weight=weight, correction=bool(correction),
        action=msgspec.json.decode(action, type=Action), reward=reward,
        rejected=None if rejected is None else msgspec.json.decode(rejected, type=Action),
    )  # fmt: skip


__all__ = ["Journal", "named_queries"]
