"""The daemon's side of the policy: keeps a worker process alive and asks it, again if it dies."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from runtime.catalogue import Catalogue
from runtime.config import PolicyConfig
from runtime.errors import Unavailable
from runtime.learning.jobs import Base
from runtime.messages import Action
from runtime.policy import protocol
from runtime.policy.protocol import (
    Answer,
    Done,
    Failed,
    Hello,
    Load,
    Loaded,
    Look,
    Looked,
    Request,
    Row,
    Score,
    Scored,
    Unload,
)
from runtime.processes import SERVING, environment

log = structlog.get_logger("policy")
LIVE_FLOOR = 1e-3  # of a decision: what lies below less likely tokens shares their probability
BULK_BATCH = 16  # texts a bulk request carries
BULK_FLOOR = 1e-2  # bulk scoring does not look below first tokens less likely than this
TRIES = 3  # workers a request may see die before it is given up
BACKOFF = (0.2, 1.0, 5.0, 15.0)  # seconds between deaths of the worker
LONG_LIFE = 600.0  # seconds after which a death is an accident, not one of a series


class Ticket:
    """A request and the answer that will come."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.deaths = 0  # workers that died while they had it


class Policy:
    """`async with Policy(...)`: the worker runs inside the block; calls before it is ready wait for it."""

    def __init__(self, config: PolicyConfig, data: Path, instruction: str) -> None:
        self._settings = {**config.model_dump(mode="json"), "instruction": instruction}
        self._threads = config.threads
        self._data = data
        self._waiting: dict[int, Ticket] = {}  # by number, oldest first
        self._numbers = itertools.count(1)
        self._writer: asyncio.StreamWriter | None = None
        self._ready = asyncio.Event()
        self._base: Base | None = None
        self._adapters: dict[str, str] = {}  # what a new worker is told to load
        self._keeper: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._failure = ""
        self._deciding = 0
        self.on_busy: Callable[[bool], None] = lambda busy: None  # told when decisions begin and end to wait
        self.mixed = 0  # answers that named another adapter than was asked for; must stay 0
        self.held_ms = 0.0  # by the longest step of loading and unloading adapters so far

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

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Row:
        """A live decision, before any bulk work. `feature`: say also what the situation is like."""
        self._busy(+1)
        try:
            return (await self._score(True, [text], catalogue, adapter, LIVE_FLOOR, (), feature))[0]
        finally:
            self._busy(-1)

    def _busy(self, change: int) -> None:
        before, self._deciding = self._deciding, self._deciding + change
        if not before or not self._deciding:
            self.on_busy(bool(self._deciding))

    async def score(
        self,
        texts: Sequence[str],
        catalogue: Catalogue,
        adapter: str,
        *,
        floor: float = BULK_FLOOR,
        gold: Sequence[Action] = (),
        feature: bool = False,
    ) -> list[Row]:
        """Many texts, in small batches that live decisions may overtake. Similar lengths share a batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: dict[int, Row] = {}
        for start in range(0, len(order), BULK_BATCH):
            part = order[start : start + BULK_BATCH]
            wanted = [gold[i] for i in part] if gold else []
            answered = await self._score(False, [texts[i] for i in part], catalogue, adapter, floor, wanted, feature)
            rows.update(zip(part, answered, strict=True))
        return [rows[i] for i in range(len(texts))]

    async def _score(
        self, live: bool, texts: list[str], catalogue: Catalogue, adapter: str, floor: float, gold: Sequence[Action],
        feature: bool,
    ) -> list[Row]:  # fmt: skip
        request = Score(
            number=next(self._numbers), live=live, texts=texts, catalogue=catalogue, adapter=adapter, floor=floor,
            gold=list(gold), feature=feature,
        )  # fmt: skip
        answer = await self._ask(request)
        assert isinstance(answer, Scored), answer
        self.mixed += answer.adapter != adapter
        return answer.rows

    async def look(self, texts: Sequence[str], catalogue: Catalogue) -> list[bytes]:
        """What situations are like, in small batches that live decisions may overtake."""
        found: list[bytes] = []
        for start in range(0, len(texts), BULK_BATCH):
            part = list(texts[start : start + BULK_BATCH])
            answer = await self._ask(Look(number=next(self._numbers), texts=part, catalogue=catalogue))
            assert isinstance(answer, Looked), answer
            found.extend(answer.features)
        return found

    async def load(self, adapter: str, directory: Path) -> list[float]:
        """Make an adapter available; returns the fingerprint of what would really serve."""
        answer = await self._ask(Load(number=next(self._numbers), adapter=adapter, directory=str(directory)))
        assert isinstance(answer, Loaded), answer
        self._adapters[adapter] = str(directory)
        self.held_ms = max(self.held_ms, answer.held_ms)
        return answer.fingerprint

    async def unload(self, adapter: str) -> None:
        self._adapters.pop(adapter, None)
        answer = await self._ask(Unload(number=next(self._numbers), adapter=adapter))
        assert isinstance(answer, Done), answer
        self.held_ms = max(self.held_ms, answer.held_ms)

    async def _ask(self, request: Request) -> Answer:
        if self._keeper is None or self._keeper.done():
            raise Unavailable(self._failure or "the policy worker is not running")
        body = protocol.frame(request)
        ticket = self._waiting[request.number] = Ticket(request)
        try:
            if self._writer is not None:
                self._writer.write(body)
            answer = await ticket.answer
        finally:
            self._waiting.pop(request.number, None)
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
            await self._greet(reader, writer)
            while True:
                answer = await protocol.read_answer(reader)
                ticket = self._waiting.get(answer.number) if not isinstance(answer, Hello) else None
                if ticket is not None and not ticket.answer.done():
                    ticket.answer.set_result(answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self._bury()
            raise
        finally:
            self._writer = None
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give a new worker its adapters, then everything that waits; calls are stateless, so any worker can answer."""
        for adapter, directory in tuple(self._adapters.items()):
            writer.write(protocol.frame(Load(adapter=adapter, directory=directory)))
            await writer.drain()
            await protocol.read_answer(reader)
        for ticket in self._waiting.values():
            writer.write(protocol.frame(ticket.request))
        self._writer = writer
        self._ready.set()

    def _bury(self) -> None:
        """What a worker had when it died is asked again, but not for ever: it may be what killed it."""
        for ticket in self._waiting.values():
            ticket.deaths += 1
            if ticket.deaths >= TRIES and not ticket.answer.done():
                ticket.answer.set_result(Failed(error=f"the policy worker died {TRIES} times over this request"))

    async def _start(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        try:
            with theirs, (self._data / "policy.log").open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "runtime.policy.worker", str(theirs.fileno()), json.dumps(self._settings),
                    pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                    env=environment(self._threads, SERVING), start_new_session=True,
                )  # fmt: skip
            return await asyncio.open_connection(sock=ours)
        except BaseException:  # also if it is to end while it starts; a worker without its daemon's end leaves
            ours.close()
            raise

    async def _end_process(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _give_up_waiting(self, reason: str) -> None:
        for ticket in self._waiting.values():
            if not ticket.answer.done():
                ticket.answer.set_result(Failed(error=reason))
