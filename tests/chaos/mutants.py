"""Planted bugs: each replaces one function of the real daemon, in its own process, before it starts.

A mutant that the checker does not find is a hole in the checker. `needs` are the faults that bring it to light, `finds` the
invariant that has to go red. Bugs in how versions are stored: `stores.py`. Nothing here is ever imported by the runtime.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from plugins import mqtt, mqtt_inbox, mqtt_sensors
from plugins.mqtt import Mqtt
from plugins.mqtt_client import DurableClient
from plugins.mqtt_lane import Lane
from plugins.mqtt_outbox import Outbox
from runtime import action, app
from runtime.action import Acting
from runtime.errors import BadConfig
from runtime.guard import Guard
from runtime.ingest import Ingest
from runtime.journal import Journal, lock, writer
from runtime.learning import registry
from runtime.learning.registry import Manifest, Registry
from runtime.messages import Command, Message, Quarantined, new_id, portion
from tests.chaos.actuator import DEAF

LATER = 1.0  # seconds that a step is late which has to be first
EXTRA = 30.0  # seconds
SHARE = 0.03  # of the messages that a mutant gets wrong
_tasks: set[asyncio.Task[Any]] = set()


@dataclass(frozen=True)
class Mutant:
    plant: Callable[[], None]
    finds: str
    needs: dict[str, int] = field(default_factory=dict)
    traced: bool = False
    events: int = 300
    deaf: float = DEAF  # share of the commands that no actuator hears
    waking: float = 0.4  # share of the events that ask for a decision


def plant(name: str) -> None:
    """Put the bug in. Raises BadConfig for a name that is none."""
    if name not in MUTANTS:
        raise BadConfig(f"there is no mutant {name!r}; there are {', '.join(MUTANTS)}")
    MUTANTS[name].plant()


def _put(owner: Any, name: str, new: Callable[[Any], Any]) -> None:
    """Replace a function by one that is made from it."""
    setattr(owner, name, new(getattr(owner, name)))


def _in_the_background(call: Callable[[], Any]) -> None:
    async def late() -> None:
        await asyncio.sleep(LATER)
        await asyncio.gather(call(), return_exceptions=True)

    task = asyncio.create_task(late())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def ack_before_commit() -> None:
    def new(old: Any) -> Any:
        async def observation(self: Ingest, message: Any) -> None:
            _in_the_background(lambda: old(self, message))

        return observation

    _put(Ingest, "_observation", new)


def no_unique_key() -> None:
    def new(old: Any) -> Any:
        def observation(topic: str, body: bytes, told: dict[str, str], *, retained: bool, name: str = "") -> Any:
            return old(topic, body, {key: text for key, text in told.items() if key != "id"}, retained=retained)

        return observation

    _put(mqtt_sensors, "observation", new)


def retained_as_event() -> None:
    def new(old: Any) -> Any:
        def observation(topic: str, body: bytes, told: dict[str, str], *, retained: bool, name: str) -> Any:
            return old(topic, body, told, retained=False, name=name)

        return observation

    _put(mqtt_sensors, "observation", new)


def stored_though_refused() -> None:
    def new(old: Any) -> Any:
        def write(connection: Any, puts: list[Any], chain: Any) -> Any:
            results = old(connection, puts, chain)
            return [1] * len(puts) if isinstance(results, Exception) else results

        return write

    _put(writer, "_write", new)


def reencodes() -> None:
    def new(old: Any) -> Any:
        async def observation(self: Ingest, message: Any) -> None:
            await old(self, replace(message, payload=message.payload.replace(b": ", b":")))

        return observation

    _put(Ingest, "_observation", new)


def sheds_uncounted() -> None:
    def new(old: Any) -> Any:
        async def observation(self: Ingest, message: Any) -> None:
            if portion(message.id) > SHARE:
                await old(self, message)

        return observation

    _put(Ingest, "_observation", new)


def sheds_what_waits() -> None:
    """Under load also what a producer numbered and waits to hear about is let go."""

    def new(old: Any) -> Any:
        def spare(self: mqtt_sensors.Sensors, message: Any) -> str:
            return str(old(self, message)) or (
                mqtt_sensors.QOS_0 if portion(message.told.get("id", "")) < SHARE else ""
            )

        return spare

    _put(mqtt_sensors.Sensors, "spare", new)
    _put(mqtt_inbox, "SPARE", lambda old: 0)


def quarantine_forgotten() -> None:
    def new(old: Any) -> Any:
        async def put(self: Journal, *messages: Message, patient: bool = False) -> int:
            kept = [message for message in messages if not isinstance(message, Quarantined)]
            return await old(self, *kept, patient=patient) if kept else 0

        return put

    _put(Journal, "put", new)


def acks_unsaid() -> None:
    def new(old: Any) -> Any:
        def acknowledge(self: Outbox, topic: str, identity: str) -> None:
            if portion(identity) > SHARE:
                old(self, topic, identity)

        return acknowledge

    _put(Outbox, "acknowledge", new)


def forgets_what_came() -> None:
    async def resume(self: app.App) -> None:
        return None

    _put(app.App, "_resume", lambda old: resume)


def forgets_commands() -> None:
    async def resume(self: Acting) -> None:
        return None

    _put(Acting, "_resume", lambda old: resume)


def sent_before_written() -> None:
    def new(old: Any) -> Any:
        async def put(self: Journal, *messages: Message, patient: bool = False) -> int:
            if not isinstance(messages[0], Command):
                return int(await old(self, *messages, patient=patient))
            _in_the_background(lambda: old(self, *messages))
            return 1

        return put

    _put(Journal, "put", new)


def no_expiry() -> None:
    def act(old: Any) -> Any:
        async def acting(self: Mqtt, command: Command) -> Any:
            return await old(self, replace(command, expires_at=command.expires_at + EXTRA))

        return acting

    def publish(old: Any) -> Any:
        async def publishing(self: Mqtt, command: Command, waiting: Any, time_left: Any, qos: int = 1) -> Any:
            return await old(self, command, waiting, lambda: time_left() - EXTRA, qos)

        return publishing

    _put(Mqtt, "act", act)
    _put(Mqtt, "_publish", publish)


def guard_off() -> None:
    _put(Guard, "judge", lambda old: lambda self, action, catalogue: None)
    _put(Guard, "_outside", lambda old: lambda self, actuator, action: None)


def retained_commands() -> None:
    def new(old: Any) -> Any:
        async def publish(
            self: Any, /, topic: str, payload: Any = None, qos: int = 0, retain: bool = False, *a: Any, **k: Any
        ) -> None:
            await old(self, topic, payload, qos, retain or topic.startswith("act/"), *a, **k)

        return publish

    _put(DurableClient, "publish", new)


def applied_unheard() -> None:
    def new(old: Any) -> Any:
        async def publish(self: Mqtt, command: Command, waiting: Any, time_left: Any, qos: int = 1) -> str:
            why = str(await old(self, command, waiting, time_left, qos))
            if not why and not waiting.done.done():
                waiting.done.set_result("")
            return why

        return publish

    _put(Mqtt, "_publish", new)


def new_id_each_time() -> None:
    def new(old: Any) -> Any:
        async def publish(self: Mqtt, command: Command, waiting: Any, time_left: Any, qos: int = 1) -> str:
            return str(await old(self, replace(command, id=new_id("cm")), waiting, time_left, qos))

        return publish

    _put(Mqtt, "_publish", new)


def no_lock() -> None:
    _put(lock, "hold", lambda old: lambda data: nullcontext())


def second_command() -> None:
    """The same decision is taken twice with other ids: no key that a recomputation finds again."""

    def new(old: Any) -> Any:
        async def take(self: Acting, decision: Any) -> None:
            await old(self, decision)
            await old(self, replace(decision, percept_id=decision.percept_id))

        return take

    counter = itertools.count()
    _put(action, "derived_id", lambda old: lambda kind, *parts: old(kind, *parts, str(next(counter))))
    _put(Acting, "take", new)


def normal_sync() -> None:
    def new(old: Any) -> Any:
        def write(connection: Any, puts: list[Any], chain: Any) -> Any:
            connection.execute("PRAGMA synchronous = NORMAL")
            return old(connection, puts, chain)

        return write

    _put(writer, "_write", new)


def never_perceives_some() -> None:
    def new(old: Any) -> Any:
        async def perceived(self: Journal, ids: Any, *percepts: Any) -> None:
            await old(self, [id for id in ids if portion(id) > SHARE], *percepts)

        return perceived

    _put(Journal, "perceived", new)


def stays_dead() -> None:
    """A lost connection is waited for, and never made again."""

    def new(old: Any) -> Any:
        async def run(self: Lane) -> None:
            async with self._connect() as client:
                await asyncio.gather(self._use(client), return_exceptions=True)
            await asyncio.Event().wait()

        return run

    _put(Lane, "run", new)


def resend_of_one_shot() -> None:
    """What may be told once is told until somebody answers."""
    _put(Mqtt, "_once", lambda old: Mqtt._until_done)


def sending_forgotten() -> None:
    """After a crash a command that was about to leave is sent like any other."""

    def new(old: Any) -> Any:
        async def unsettled(self: Journal) -> list[tuple[Command, str]]:
            return [(command, "" if status == "sending" else status) for command, status in await old(self)]

        return unsettled

    _put(Journal, "unsettled", new)


def wall_clock_ttl() -> None:
    """Whether it is too late is asked of the wall clock alone, which somebody may put back."""
    for module in (action, mqtt):
        _put(module, "until", lambda old: lambda made_at, expires_at, **clocks: lambda: expires_at - time.time())


def no_fence() -> None:
    async def fence(journal: Journal) -> int:
        return 0

    _put(app, "_fence", lambda old: fence)


def serves_what_rotted() -> None:
    """The weights that were released are served, whatever became of them."""

    def unproven(old: Any) -> Any:
        def verify(self: Registry, adapter: str, revision: str = "") -> Manifest:
            return self.manifest(adapter)

        return verify

    _put(Registry, "verify", unproven)
    _put(registry, "same_fingerprint", lambda old: lambda adapter, trained, served: None)


MUTANTS = {
    "resend_of_one_shot": Mutant(resend_of_one_shot, "I6"),
    "sending_forgotten": Mutant(sending_forgotten, "I6", {"kill_agent": 4}),
    "no_fence": Mutant(no_fence, "I6"),
    "wall_clock_ttl": Mutant(wall_clock_ttl, "I7", {"jump_clock": 2}, deaf=0.5),
    "ack_before_commit": Mutant(ack_before_commit, "I1", {"kill_agent": 2}),
    "no_unique_key": Mutant(no_unique_key, "I2", {"double_messages": 1}),
    "retained_as_event": Mutant(retained_as_event, "I8"),
    "stored_though_refused": Mutant(stored_though_refused, "I1", {"fill_disk": 3}, waking=0.0),
    "reencodes": Mutant(reencodes, "I1"),
    "sheds_uncounted": Mutant(sheds_uncounted, "I1"),
    "sheds_what_waits": Mutant(sheds_what_waits, "I3"),
    "quarantine_forgotten": Mutant(quarantine_forgotten, "I1"),
    "acks_unsaid": Mutant(acks_unsaid, "I3"),
    "forgets_what_came": Mutant(forgets_what_came, "I4", {"kill_agent": 3}),
    "forgets_commands": Mutant(forgets_commands, "I5", {"kill_agent": 2}),
    "sent_before_written": Mutant(sent_before_written, "I11", {"kill_agent": 2}),
    "no_expiry": Mutant(no_expiry, "I7", deaf=0.5),
    "guard_off": Mutant(guard_off, "I11"),
    "retained_commands": Mutant(retained_commands, "I7"),
    "applied_unheard": Mutant(applied_unheard, "I6"),
    "new_id_each_time": Mutant(new_id_each_time, "I11"),
    "no_lock": Mutant(no_lock, "faults", {"second_agent": 1}),
    "second_command": Mutant(second_command, "I6"),
    "normal_sync": Mutant(normal_sync, "sync", traced=True),
    "never_perceives_some": Mutant(never_perceives_some, "I4"),
    "serves_what_rotted": Mutant(serves_what_rotted, "I9", {"corrupt_adapter": 1}, events=4000),
    "stays_dead": Mutant(stays_dead, "I3", {"cut_link": 1}),
}
