"""The single writer: many coroutines put, one connection commits them together (group commit), then all are told.

`synchronous=FULL` and WAL: when a `put` returns, its rows survive a power cut. One put is one savepoint, so it is all or
nothing, and a put that fails does not harm the others of its group. On a full disk the ballast is given up and the group is
tried once more; after an error of the disk the connection is opened anew, and nobody of the group is told "stored".
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiosqlite
import structlog

from runtime.errors import CorrigibleError, Unavailable, Unwritable
from runtime.journal import opening
from runtime.journal.ballast import Ballast
from runtime.journal.chain import Chain, Link
from runtime.journal.rows import Row

GROUP = 64  # puts a commit carries at most
SETTLE, AGAIN = 20, 0.5  # tries, and seconds between two, to learn whether a commit in doubt was made
PASSING = (  # what a disk or another program does for a while; anything else does not go away by itself
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
)  # fmt: skip
LINGER = 0.002  # seconds the writer waits for company

log = structlog.get_logger("journal")


class Writer:
    """Owns the connection's write side."""

    def __init__(self, connection: aiosqlite.Connection, path: Path, ballast: Ballast, chain: Chain) -> None:
        self._connection, self._chain = connection, chain
        self._path, self._ballast = path, ballast
        self._doubtful = False  # the connection saw an error of the disk
        self._queue: asyncio.Queue[tuple[Sequence[Row], asyncio.Future[int]]] = asyncio.Queue(4096)
        self._task = asyncio.create_task(self._run(), name="journal writer")
        self.healthy = True
        self.commits = 0

    async def put(self, rows: Sequence[Row]) -> int:
        """The number of rows that were new, once they are durable. Raises Unavailable if they could not be stored,
        Unwritable if nothing can be."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._queue.put((rows, done))
        return await done

    @property
    def alive(self) -> bool:
        return not self._task.done()

    @property
    def head(self) -> Link:
        return self._chain.head

    async def close(self) -> None:
        """Commit what is waiting, then stop."""
        await self._queue.join()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            group = [await self._queue.get()]
            if self._queue.empty():
                await asyncio.sleep(LINGER)
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                await self._commit(group)
            except Exception as error:  # whatever it is, nobody waits for ever
                log.exception("the writer failed")
                self.healthy = False
                self._answer(group, [error] * len(group))
            for _ in group:
                self._queue.task_done()

    async def _commit(self, group: list[tuple[Sequence[Row], asyncio.Future[int]]]) -> None:
        """One transaction on the connection's own thread, then the answers."""
        puts = [rows for rows, _ in group]
        results = await self._written(puts)
        if _kind(results) == sqlite3.SQLITE_FULL and self._ballast.release():
            log.error("the disk is full; the room set aside for that is used now", path=str(self._path))
            results = await self._written(puts)
        self.healthy = not isinstance(results, Exception)
        self.commits += 1
        self._answer(group, results if self.healthy else [results] * len(group))

    def _answer(
        self, group: list[tuple[Sequence[Row], asyncio.Future[int]]], results: Sequence[int | Exception]
    ) -> None:
        for (_, done), result in zip(group, results, strict=True):
            if done.done():
                continue
            if isinstance(result, Exception):
                passing = not self.healthy and (isinstance(result, Unavailable) or _kind(result) in PASSING)
                kind = Unwritable if passing else Unavailable
                done.set_exception(kind(f"the journal could not store this: {result}"))
            else:
                done.set_result(result)

    async def _written(self, puts: list[Sequence[Row]]) -> Any:
        """One try. The result of each put, or the exception that all share."""
        execute: Any = self._connection._execute  # aiosqlite offers no public way to run a function on its thread
        if self._doubtful and (error := await self._reopen()):
            return error
        results = await execute(_write, self._connection._conn, puts, self._chain)
        if _kind(results) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN):
            self._doubtful = True
            log.error("the disk failed; the journal is opened anew", path=str(self._path), error=str(results))
            if isinstance(results, Unsure):
                return await self._settled(results)
        return results

    async def _settled(self, unsure: Unsure) -> Any:
        """Whether a commit in doubt was made. Nobody is answered meanwhile: who is told "not stored" might store it twice over."""
        for _ in range(SETTLE):
            if not await self._reopen():
                made = self._chain.head == unsure.link != unsure.before
                return unsure.results if made else unsure
            await asyncio.sleep(AGAIN)
        return unsure

    async def _reopen(self) -> Exception | None:
        """A connection that can be trusted again, and the chain as it is on the disk; or why there is none."""
        execute: Any = self._connection._execute
        try:
            self._connection._connection = await execute(opening.reopened, self._connection._conn, self._path)
            await execute(self._chain.renew, self._connection._conn)
        except (CorrigibleError, sqlite3.Error) as error:
            return error
        self._doubtful = False
        return None


class Unsure(Exception):
    """The commit itself failed: it may be on the disk all the same, or not. `results` are those of the puts if it is."""

    def __init__(self, error: Exception, results: list[int | Exception], before: Link, link: Link) -> None:
        super().__init__(str(error))
        self.sqlite_errorcode = getattr(error, "sqlite_errorcode", None)
        self.results, self.before, self.link = results, before, link


def _kind(result: Any) -> int | None:
    """SQLite's primary error code, if the result is such an error."""
    code = getattr(result, "sqlite_errorcode", None)
    return None if code is None else code & opening.PRIMARY


def _write(connection: Any, puts: list[Sequence[Row]], chain: Chain) -> Any:
    """Runs on the database thread. A list with a count or an exception for each put, or the exception of the commit."""
    results, link = [], None
    try:
        connection.execute("BEGIN IMMEDIATE")
        results = [_put(connection, rows) for rows in puts]
        link = chain.extend(connection, time.time())
        connection.execute("COMMIT")
        chain.accept(link)
    except Exception as error:  # disk full, read-only ...: nobody of the group is told "stored"
        with suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return error if link is None else Unsure(error, results, chain.head, link)
    return results


def _put(connection: Any, rows: Sequence[Row]) -> int | Exception:
    """All rows of one put or none; a row alone needs no savepoint, for SQLite undoes a statement that fails."""
    several = len(rows) > 1
    if several:
        connection.execute("SAVEPOINT put")
    result: int | Exception
    try:
        result = sum(max(connection.execute(sql, values).rowcount, 0) for sql, values in rows)
    except Exception as error:  # this put only, unless SQLite gave the whole transaction up
        if not connection.in_transaction:
            raise
        if several:
            connection.execute("ROLLBACK TO put")
        result = error
    if several:
        connection.execute("RELEASE put")
    return result
