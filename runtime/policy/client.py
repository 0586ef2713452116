"""The daemon's side of the policy: keeps a worker process alive and asks it one thing at a time, people's business first."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from runtime.catalogue import Catalogue
from runtime.config import PolicyConfig
from runtime.errors import Unavailable
from runtime.learning.jobs import Base
from runtime.messages import Action, Message
from runtime.policy import protocol
from runtime.policy.protocol import Answer, Failed, Hello, Load, Loaded, Row, Score, Scored, Unload

log = structlog.get_logger("policy")
LIVE, BULK = 0, 1  # priorities: a decision goes before a batch of an evaluation
BULK_BATCH = 16  # texts a bulk request carries
BULK_FLOOR = 1e-2  # bulk scoring does not look below first tokens less likely than this
TRIES = 2  # workers a request may see die before it is given up
BACKOFF = (0.2, 1.0, 5.0, 15.0)  # seconds between deaths of the worker
LONG_LIFE = 600.0  # seconds after which a death is an accident, not one of a series


class Ticket:
    """A request and the answer that will come; sorts by priority, then by arrival."""

    def __init__(self, priority: int, number: int, request: Message) -> None:
        self.order = (priority, number)
        self.request = request
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.tries = 0

    def __lt__(self, other: Ticket) -> bool:
        return self.order < other.order


class Policy:
    """`async with Policy(...)`: the worker runs inside the block; calls before it is ready wait for it."""

    def __init__(self, config: PolicyConfig, data: Path, instruction: str) -> None:
        self._settings = {**config.model_dump(mode="json"), "instruction": instruction}
        self._threads = config.threads
        self._data = data
        self._queue: asyncio.PriorityQueue[Ticket] = asyncio.PriorityQueue()
        self._numbers = itertools.count()
        self._ready = asyncio.Event()
        self._base: Base | None = None
        self._adapters: dict[str, str] = {}  # what a new worker is told to load
        self._keeper: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._failure = ""
        self.mixed = 0  # answers that named another adapter than was asked for; must stay 0

    async def __aenter__(self) -> Policy:
        self._keeper = asyncio.create_task(self._keep(), name="policy worker")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
        self._give_up_waiting("the policy worker was stopped")

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def wait_ready(self) -> None:
        """Wait for the model. Raises Unavailable with the worker's reason if it cannot be had."""
        waiter = asyncio.create_task(self._ready.wait())
        assert self._keeper is not None
        await asyncio.wait({waiter, self._keeper}, return_when=asyncio.FIRST_COMPLETED)
        if not self._ready.is_set():
            waiter.cancel()
            raise Unavailable(self._failure or "the policy worker did not start")

    def base(self) -> Base:
        if self._base is None:
            raise Unavailable("the base model is not loaded yet")
        return self._base

    # --- calls --------------------------------------------------------------------------------------------------

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str) -> Row:
        """A live decision: the whole catalogue, before any bulk work."""
        return (await self._score(LIVE, [text], catalogue, adapter, 0.0, ()))[0]

    async def score(
        self,
        texts: Sequence[str],
        catalogue: Catalogue,
        adapter: str,
        *,
        floor: float = BULK_FLOOR,
        gold: Sequence[Action] = (),
    ) -> list[Row]:
        """Many texts, in small batches that live decisions may overtake. Similar lengths share a batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: dict[int, Row] = {}
        for start in range(0, len(order), BULK_BATCH):
            part = order[start : start + BULK_BATCH]
            wanted = [gold[i] for i in part] if gold else []
            answered = await self._score(BULK, [texts[i] for i in part], catalogue, adapter, floor, wanted)
            rows.update(zip(part, answered, strict=True))
        return [rows[i] for i in range(len(texts))]

    async def _score(
        self, priority: int, texts: list[str], catalogue: Catalogue, adapter: str, floor: float, gold: Sequence[Action]
    ) -> list[Row]:
        request = Score(texts=texts, catalogue=catalogue, adapter=adapter, floor=floor, gold=list(gold))
        answer = await self._ask(priority, request)
        assert isinstance(answer, Scored), answer
        self.mixed += answer.adapter != adapter
        return answer.rows

    async def load(self, adapter: str, directory: Path) -> list[float]:
        """Make an adapter available; returns the fingerprint of what would really serve."""
        answer = await self._ask(LIVE, Load(adapter=adapter, directory=str(directory)))
        assert isinstance(answer, Loaded), answer
        self._adapters[adapter] = str(directory)
        return answer.fingerprint

    async def unload(self, adapter: str) -> None:
        self._adapters.pop(adapter, None)
        await self._ask(LIVE, Unload(adapter=adapter))

    async def _ask(self, priority: int, request: Message) -> Answer:
        if self._keeper is None or self._keeper.done():
            raise Unavailable(self._failure or "the policy worker is not running")
        ticket = Ticket(priority, next(self._numbers), request)
        self._queue.put_nowait(ticket)
        answer = await ticket.answer
        if isinstance(answer, Failed):
            raise Unavailable(answer.error)
        return answer

    # --- the worker's life --------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Start a worker, serve until it dies, start the next one; stop for good if the model cannot be had."""
        death = 0
        while True:
            born = time.monotonic()
            try:
                await self._one_life()
            except Unavailable as error:
                self._failure = str(error)
                self._give_up_waiting(self._failure)
                log.error("no policy", reason=self._failure)
                return
            except (ConnectionError, asyncio.IncompleteReadError, EOFError):
                death = 0 if time.monotonic() - born > LONG_LIFE else death
                wait = BACKOFF[min(death, len(BACKOFF) - 1)]
                death += 1
                log.warning("the policy worker died, starting another", seconds=wait)
            finally:
                self._ready.clear()
                await self._end_process()
            await asyncio.sleep(wait)

    async def _one_life(self) -> None:
        reader, writer = await self._start()
        try:
            first = await protocol.read_answer(reader)
            if isinstance(first, Failed):
                raise Unavailable(first.error)
            assert isinstance(first, Hello), first
            self._base = first.base
            for adapter, directory in tuple(self._adapters.items()):
                await self._exchange(reader, writer, Load(adapter=adapter, directory=directory))
            self._ready.set()
            while True:
                await self._serve(reader, writer, await self._queue.get())
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ticket: Ticket) -> None:
        if ticket.answer.cancelled():
            return
        ticket.tries += 1
        try:
            answer = await self._exchange(reader, writer, ticket.request)
        except (ConnectionError, asyncio.IncompleteReadError):
            if ticket.tries < TRIES:
                self._queue.put_nowait(ticket)  # stateless calls: the next worker answers it
            elif not ticket.answer.done():
                ticket.answer.set_result(Failed(error="the policy worker died twice over this request"))
            raise
        except asyncio.CancelledError:
            if not ticket.answer.done():
                ticket.answer.set_result(Failed(error="the policy worker was stopped"))
            raise
        if not ticket.answer.done():
            ticket.answer.set_result(answer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Message) -> Answer:
        writer.write(protocol.frame(request))
        await writer.drain()
        return await protocol.read_answer(reader)

    async def _start(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads), "OMP_WAIT_POLICY": "PASSIVE"}
        with theirs, (self._data / "policy.log").open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "runtime.policy.worker", str(theirs.fileno()), json.dumps(self._settings),
                pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                env=environment, start_new_session=True,
            )  # fmt: skip
        return await asyncio.open_connection(sock=ours)

    async def _end_process(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _give_up_waiting(self, reason: str) -> None:
        while not self._queue.empty():
            ticket = self._queue.get_nowait()
            if not ticket.answer.done():
                ticket.answer.set_result(Failed(error=reason))
