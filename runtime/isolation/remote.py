"""The daemon's side of an isolated plugin: it looks like any plugin, and believes the process behind it nothing.

`act` waits as everywhere; `perceive`, `judge` and `criticise` give something to be awaited (`roles.answer`). Every question has
a time-out that ends the process; what it may not say is dropped and counted, as is an answer that keeps the loop waiting, and
ten of that in a minute set it aside.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from runtime.catalogue import Tool
from runtime.errors import BadInput, CorrigibleError, NotFound, Unavailable
from runtime.isolation.frames import (
    Act,
    Acted,
    Criticise,
    Described,
    Done,
    Emitted,
    Judge,
    Noticed,
    Perceive,
    Ping,
    Sense,
    Setup,
    Situations,
    Start,
    Stop,
    Told,
    Verdict,
)
from runtime.isolation.link import Link
from runtime.isolation.permissions import Permissions
from runtime.messages import Action, Command, Decision, Feedback, Message, Observation, Outcome, Percept
from runtime.roles import ROLES, Emit, Plugin, Sensor, Situation, World
from runtime.supervision import SetAside

REJECTIONS = 10  # within MINUTE: it is set aside
MINUTE = 60.0  # seconds
LONGEST = 500  # characters of a topic, an id or a reason
SLOW = 0.2  # of its patience, from which an answer for which everybody waits counts as one of these
AHEAD = 60.0  # seconds an observation's time may lie in the future

log = structlog.get_logger("isolation")
A = TypeVar("A", bound=Message)
Heard = Observation | Percept | Decision | Command | Outcome


class Remote(Plugin):
    """Has all verbs; a subclass made by `of_roles` says which of them count."""

    isolated = True

    def __init__(self, name: str, use: str, setup: Setup, permissions: Permissions) -> None:
        self.name, self.use = name, use
        self._setup, self._may = setup, permissions
        self._link: Link | None = None
        self._endings: set[asyncio.Future[None]] = set()
        self._tools: dict[str, tuple[Tool, ...]] = {}
        self.said: Described | None = None  # what it is
        self._recent: deque[float] = deque(maxlen=REJECTIONS)
        self._budget = Budget(permissions.rate)
        self.lacking: list[str] = []  # of its confinement, what this machine cannot do
        self.failure = ""  # why it could not even be introduced
        self.rejected = self.shed = 0

    @property
    def pid(self) -> int | None:
        return self._link.pid if self._link is not None else None

    # --- its life -----------------------------------------------------------------------------------------------

    async def introduce(self) -> Described:
        """Start the process and hear what it is. Raises Unavailable with the reason if that is not to be had or not allowed."""
        link = self._link = Link(self.name, self._reject, self._lose)
        try:
            found = await link.open(self._setup, self._may.environment)
            misfit = self._may.misfit(found.roles, found.tools)
            if misfit is not None:
                raise Unavailable(misfit)
        except BaseException:
            await self._part()
            raise
        self.lacking = found.lacking
        return found

    def adopt(self, found: Described) -> None:
        """Be of the class that its roles make of it."""
        self.__class__ = of_roles(found.roles)
        self._tools, self.said = found.tools, found

    def recall(self, found: Described | None) -> None:
        """Be what it was when it last lived, without a process; nothing of what is not allowed any more."""
        if found is not None and self._may.misfit(found.roles, found.tools) is None:
            self.adopt(found)

    async def live(self, emit: Emit) -> None:
        """Start, sense if it is a sensor, and stay until the process ends. Raises what it ended of."""
        if self.failure:
            raise SetAside(self.failure)
        if self._link is None or not self._link.alive:
            again = await self.introduce()
            if again.tools != self._tools:
                raise SetAside("it offers other tools than at first; start the daemon again if you trust that")
        link = self._link
        assert link is not None
        await link.ask(Start(), self._may.act, Done)
        works: list[Coroutine[Any, Any, object]] = [link.ended(), self._pulse(link), self._hand_on(link, emit)]
        if isinstance(self, Sensor):
            works.append(link.ask(Sense(), None, Done))
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not link.alive:
            await link.ended()
        for task in done:
            task.result()

    async def stop(self) -> None:
        """Ask it to stop, and end it whatever it says."""
        if self._link is not None and self._link.alive:
            with suppress(CorrigibleError):
                await self._link.ask(Stop(), self._may.patience, Done)
        await self._part()

    async def _part(self) -> None:
        """The end of a life goes on if whoever waits for it is cancelled; the next who parts waits for it, too."""
        link, self._link = self._link, None
        if link is not None:
            self._endings.add(asyncio.ensure_future(link.close()))
        if self._endings:
            await asyncio.wait(tuple(self._endings))
            self._endings = {ending for ending in self._endings if not ending.done()}

    async def _pulse(self, link: Link) -> None:
        """A loop in there that turns no more is a death, only slower."""
        while True:
            await asyncio.sleep(self._may.patience / 2)
            await link.ask(Ping(), self._may.patience, Done)

    # --- what it says by itself ---------------------------------------------------------------------------------

    async def _hand_on(self, link: Link, emit: Emit) -> None:
        """Emitted messages in their order, no faster than allowed: the child waits for every answer."""
        while True:
            emitted = await link.emitted.get()
            await self._budget.spend()
            link.send(await self._fate(emitted, emit))

    async def _fate(self, emitted: Emitted, emit: Emit) -> Told:
        message = emitted.observation or emitted.feedback
        reason = "it is no Sensor" if not isinstance(self, Sensor) else self._unfit(message)
        if message is None or reason is not None:
            self._reject(reason or "it emitted nothing")
            return Told(number=emitted.number, error="BadInput", why=str(reason))
        try:
            await emit(self._signed(message))
        except (BadInput, NotFound) as error:
            self._reject(f"the runtime refused what it emitted: {error}")
            return Told(number=emitted.number, error=type(error).__name__, why=str(error))
        return Told(number=emitted.number)

    def _unfit(self, message: Observation | Feedback | Situation | None) -> str | None:
        """The reason why this cannot be taken from it, or None."""
        if message is None:
            return "it emitted nothing"
        if not sound(message):
            return "a message that JSON cannot carry"
        if isinstance(message, Observation):
            if max(len(message.topic), len(message.id), len(message.source)) > LONGEST:
                return f"a topic, id or source of more than {LONGEST} characters"
            if not math.isfinite(message.at) or message.at > time.time() + AHEAD:
                return "an observation from the future"
        return self._may.wrong(message)

    def _signed(self, message: Observation | Feedback) -> Observation | Feedback:
        """With its name in id and source: it can neither speak for others nor use up their ids."""
        source = f"{self.name}/{message.source}" if message.source not in ("", self.name) else self.name
        return replace(message, id=f"{self.name}:{message.id}", source=source)

    def _lose(self) -> None:
        self.shed += 1

    def _reject(self, reason: str) -> None:
        self.rejected += 1
        now = time.monotonic()
        self._recent.append(now)
        log.warning("rejected", plugin=self.name, reason=reason[:LONGEST])
        if len(self._recent) == REJECTIONS and now - self._recent[0] < MINUTE and self._link is not None:
            self._link.fail(SetAside(f"{REJECTIONS} of its messages were rejected within a minute, the last: {reason}"))

    # --- what it is asked ---------------------------------------------------------------------------------------

    def _alive(self) -> Link:
        if self._link is None or not self._link.alive:
            raise Unavailable(f"{self.name} is not running")
        return self._link

    async def _soon(self, request: Perceive | Judge, kind: type[A]) -> A:
        """What the whole loop waits for: one that always uses up its patience is set aside, too."""
        began = time.monotonic()
        found = await self._alive().ask(request, self._may.patience, kind)
        if (took := time.monotonic() - began) > SLOW * self._may.patience:
            self._reject(f"everybody waited {took:.1f} s for its answer")
        return found

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return self._tools

    async def perceive(self, world: World, observation: Observation) -> list[Situation]:
        if not self._may.sees(observation.topic):
            return []
        readings = [reading for reading in world.readings.values() if self._may.shows(reading.name)]
        request = Perceive(readings=readings, now=world.now, observation=observation)
        answer = await self._soon(request, Situations)
        return [situation for situation in answer.found if self._fine(situation)]

    async def judge(self, percept: Percept, action: Action, now: datetime) -> str | None:
        request = Judge(percept=percept, action=action, now=now)
        reason = (await self._soon(request, Verdict)).reason
        return reason if reason is None else " ".join(reason.split())[:LONGEST] or "no"

    async def act(self, command: Command) -> Outcome:
        outcome = (await self._alive().ask(Act(command=command), self._may.act, Acted)).outcome
        if (outcome.command_id, outcome.decision_id) != (command.id, command.decision_id):
            self._reject("an outcome of a command it was not given")
            raise Unavailable(f"{self.name} reported another command's outcome")
        return replace(outcome, id=f"{self.name}:{outcome.id}"[:LONGEST], reason=outcome.reason[:LONGEST])

    async def criticise(self, message: Heard) -> list[Feedback]:
        if isinstance(message, Observation) and not self._may.sees(message.topic):
            return []
        request = Criticise(kind=type(message).__name__, message=msgspec.Raw(msgspec.msgpack.encode(message)))
        answer = await self._alive().ask(request, self._may.patience, Noticed)
        found = [self._signed(feedback) for feedback in answer.feedback if self._fine(feedback)]
        return [feedback for feedback in found if isinstance(feedback, Feedback)]

    def _fine(self, message: Situation | Feedback) -> bool:
        reason = self._unfit(message)
        if reason is not None:
            self._reject(reason)
        return reason is None

    def report(self) -> dict[str, Any]:
        """For the status: how it is confined, and what was not taken from it."""
        return {
            "isolated": True,
            "pid": self.pid,
            "lacking": self.lacking,
            "rejected": self.rejected,
            "shed": self.shed,
        }


def of_roles(roles: list[str]) -> type[Remote]:
    """A Remote that is these roles."""
    bases = tuple(role for role in ROLES if role.__name__ in roles)
    return type("Isolated", (Remote, *bases), {})


class Budget:
    """So many a second, a second's worth at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._left, self._at = max(1.0, rate), time.monotonic()

    async def spend(self) -> None:
        now = time.monotonic()
        self._left = min(max(1.0, self._rate), self._left + (now - self._at) * self._rate)
        self._at = now
        self._left -= 1.0
        if self._left < 0:
            await asyncio.sleep(-self._left / self._rate)


def sound(message: Message) -> bool:
    """It is the same after JSON: no dates, no numbers that are none, no text that is no text."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(message), type=type(message)) == message)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError, OverflowError):
        return False
