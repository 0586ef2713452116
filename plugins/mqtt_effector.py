"""The device's side: carries out every command once, whatever dies meanwhile, and falls into its safe state when left alone.

    async with actor.connected():                       # plugins.mqtt_actor.Actor, subscribed to the device's topic
        await Effector(actor, agent="corrigible", memory=Path("bell.log"), carry_out=ring, make_safe=silence).run()

What a small device keeps to do the same: the largest `fence` it saw, and the `cmd_id` of what it has begun and ended.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from plugins.mqtt_actor import Actor, Heard
from runtime.disk import sync

KEPT = 4096  # newest commands that are remembered; far more than are under way at once
EXACT = 2**53  # from here on a JSON number may be another than was sent
UNCERTAIN = "it was begun before a restart, and nobody knows whether it was done"
ALONE = "the agent has not said in time that it is alive: the device is in its safe state"
State = Literal["begun", "done", "failed"]

log = structlog.get_logger("effector")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the memory."""

    fence: int = 0
    cmd_id: str = ""
    state: State = "done"
    why: str = ""


class Memory:
    """An append-only file of JSON lines; what `note` returned from survives a power cut. A half-written last line is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fence = 0
        self.known: dict[str, Entry] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with suppress(msgspec.MsgspecError):
                self._take(msgspec.json.decode(line, type=Entry))
        self._rewrite()
        self._file = path.open("ab", buffering=0)
        self._lines = len(self.known)

    def note(self, entry: Entry) -> None:
        """Durable on return."""
        self._take(entry)
        self._file.write(msgspec.json.encode(entry) + b"\n")
        os.fdatasync(self._file.fileno())
        self._lines += 1
        if self._lines > 4 * KEPT:
            self._file.close()
            self._rewrite()
            self._file, self._lines = self._path.open("ab", buffering=0), len(self.known)

    def close(self) -> None:
        self._file.close()

    def _take(self, entry: Entry) -> None:
        self.fence = max(self.fence, entry.fence)
        if entry.cmd_id:
            self.known.pop(entry.cmd_id, None)
            self.known[entry.cmd_id] = entry
        while len(self.known) > KEPT:
            del self.known[next(iter(self.known))]

    def _rewrite(self) -> None:
        """The same, without what is forgotten: beside the file, synced, then in its place."""
        beside = self._path.with_suffix(".new")
        with beside.open("wb") as file:
            for entry in (Entry(fence=self.fence), *self.known.values()):
                file.write(msgspec.json.encode(entry) + b"\n")
        sync(beside)
        beside.replace(self._path)
        sync(self._path.parent)


class Effector:
    """One device. `carry_out` raises if it could not be done. With `make_safe` the device has a lease: it is called at the start and
    when the lease has run out, and no command is carried out from then on until the agent says again that it is alive."""

    def __init__(
        self, actor: Actor, *, agent: str, memory: Path, carry_out: Callable[[Heard], Awaitable[None]],
        make_safe: Callable[[], Awaitable[None]] | None = None, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._actor = actor
        self._applied, self._alive = f"corrigible/{agent}/applied", f"corrigible/{agent}/alive"
        self._memory = Memory(memory)
        self._carry_out, self._make_safe = carry_out, make_safe
        self._clock = clock
        self._until: float | None = None  # monotonic; the lease ends then. None: it has ended, or never began

    async def run(self) -> None:
        """Until cancelled. The actor has to be subscribed to the device's topic, and to `corrigible/<agent>/alive` for a lease.
        A lease that runs out while a command is carried out makes safe after it."""
        told: asyncio.Queue[Heard] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(told), name="effector")
            if self._make_safe is not None:  # nobody knows what was before, nor whether there is an agent
                await self._make_safe()
            while True:
                await self._lapse()
                left = None if self._until is None else max(0.0, self._until - time.monotonic())
                try:
                    async with asyncio.timeout(left):
                        heard = await told.get()
                except TimeoutError:
                    continue
                if heard.topic != self._alive and heard.properties.get("cmd_id"):
                    problem = await self.take(heard)
                    answer = {"cmd_id": heard.properties["cmd_id"], **({"error": problem} if problem else {})}
                    group.create_task(self._actor.send(self._applied, answer), name="tell what was done")

    def close(self) -> None:
        """Let the memory's file go."""
        self._memory.close()

    async def take(self, heard: Heard) -> str:
        """What was in the way; empty if the command is carried out now, or was before."""
        identity, told = heard.properties["cmd_id"], heard.properties
        before = self._memory.known.get(identity)
        if before is not None:
            return {"done": "", "begun": UNCERTAIN, "failed": before.why}[before.state]
        if (fence := _number(told.get("fence"))) < self._memory.fence:
            return f"its fence {fence:.0f} is older than {self._memory.fence}: it comes from an agent that was replaced"
        if not fence < EXACT:
            return f"its fence {told['fence'][:20]!r} is none"
        if self._clock() >= _number(told.get("not_after"), default=float("inf")):
            return "it came too late"
        if not self._leased:  # noted, for we have said that it failed: a copy of it must not be carried out later
            self._memory.note(Entry(fence=int(fence), cmd_id=identity, state="failed", why=ALONE))
            return ALONE
        self._memory.note(Entry(fence=int(fence), cmd_id=identity, state="begun"))
        try:
            await self._carry_out(heard)
        except Exception as error:  # the device's own code
            why = f"{type(error).__name__}: {error}"
            self._memory.note(Entry(fence=int(fence), cmd_id=identity, state="failed", why=why))
            return why
        self._memory.note(Entry(fence=int(fence), cmd_id=identity, state="done"))
        return ""

    @property
    def _leased(self) -> bool:
        """Whether the agent lives, as far as we know; without a lease nobody asks."""
        return self._make_safe is None or (self._until is not None and time.monotonic() < self._until)

    async def _listen(self, told: asyncio.Queue[Heard]) -> None:
        """Beside the commands: one that takes long holds up no sign of life."""
        while True:
            heard = await self._actor.hear()
            if heard.topic == self._alive:
                self._renew(heard)
            told.put_nowait(heard)  # a sign of life, too: the end of the lease is another now

    def _renew(self, heard: Heard) -> None:
        """The agent is there, for so many seconds more. What the broker kept of it, or one that was replaced, says nothing."""
        if heard.retained or self._make_safe is None:
            return
        with suppress(msgspec.MsgspecError):
            alive = msgspec.json.decode(heard.payload, type=dict[str, float])
            fence = alive.get("fence", 0.0)
            if alive.get("for", 0.0) <= 0 or not self._memory.fence <= fence < EXACT:
                return
            if fence > self._memory.fence:
                self._memory.note(Entry(fence=int(fence)))
            self._until = heard.at + alive["for"]

    async def _lapse(self) -> None:
        """Into the safe state, once, when the lease has run out."""
        if self._make_safe is None or self._until is None or self._leased:
            return
        self._until = None
        log.warning("the agent is silent: going to the safe state")
        await self._make_safe()


def _number(text: str | None, default: float = 0.0) -> float:
    try:
        return float(text or default)
    except ValueError:
        return default
