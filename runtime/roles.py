"""What a plugin can be: five roles with one verb each, which exchange nothing but serialisable messages.

A plugin is a class of one or more roles whose annotated fields are its `config.toml` keys (it is a dataclass):

    @dataclass
    class Motion(Sensor):
        \"\"\"[[plugin]]
        use = "my_package:Motion"
        topic = "hall/motion"
        \"\"\"
        topic: str

        async def sense(self, emit: Emit) -> None:
            async for value in read_my_device():
                await emit(observe(self.topic, value))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TypeVar

import msgspec

from runtime.catalogue import Tool
from runtime.config import BrokerConfig
from runtime.messages import (
    Action,
    Command,
    Decision,
    Feedback,
    Message,
    Observation,
    Outcome,
    Percept,
    Scalar,
    new_id,
)

T = TypeVar("T")
Emit = Callable[[Observation | Feedback], Awaitable[None]]
"""Hand a message to the runtime. Returns once the journal has committed it: only then acknowledge it to its source.
Raises BadInput or NotFound if the runtime refused it (it is in quarantine then, so acknowledge it all the same)."""


class Reading(Message, frozen=True, kw_only=True):
    """The last value of one sensor."""

    name: str  # canonical: lower case, `room/quantity`
    value: Scalar
    at: float


@dataclass(frozen=True)
class World:
    """What is known now: the last reading of every sensor, and the local time. Read only."""

    readings: Mapping[str, Reading]
    now: datetime  # aware, local

    def value(self, name: str) -> Scalar:
        reading = self.readings.get(name)
        return None if reading is None else reading.value

    def age(self, name: str) -> float | None:
        """Seconds since the sensor last spoke, None if it never did."""
        reading = self.readings.get(name)
        return None if reading is None else max(0.0, self.now.timestamp() - reading.at)


class Situation(Message, frozen=True, kw_only=True):
    """What a Perceiver found worth deciding: perception completes it into a Percept (id, canonical text)."""

    scope: str
    kind: str = "sensor"  # sensor | speech | timer
    fields: dict[str, Scalar] = {}
    says: str = ""  # a person's words, verbatim
    text: str = ""  # ready-made text: perception takes it as it stands instead of rendering `fields`
    event_id: str = ""  # names the event when one observation is several; part of the percept's id


async def _nobody(command_id: str, problem: str) -> None:
    """Where no daemon runs."""


@dataclass(frozen=True)
class Context:
    """What the runtime tells a plugin before `start`: where it lives."""

    agent: str  # part of the MQTT topics
    data: Path
    broker: BrokerConfig  # with the real host and port; mode `none` = there is no broker
    zone: tzinfo
    permits: Callable[[Command], str | None] = lambda command: None
    """The guard's reason not to send a command once more; a plugin that repeats a command asks it each time."""
    kill: Callable[[bool], None] = lambda on: None
    """The kill switch."""
    armed: Callable[[], bool] = lambda: True
    """False while nothing may be commanded: a plugin that keeps devices awake lets them fall into their safe state."""
    settled: Callable[[str, str], Awaitable[None]] = _nobody
    """A device named a command that it carried out (or "" and what went wrong) when nobody waited for it any more."""
    shed: Callable[[str], object] | None = None
    """Count a message of this class that was let go because too many came. None: nothing may be let go."""
    notice: Callable[[str, str], object] = lambda kind, text: None
    """Tell a person: a word for the kind, and one sentence: what, why it matters, how to mend it."""
    fence: int = 0  # grows with every start: a device that saw a larger one refuses what comes with a smaller one


class Plugin(ABC):
    """What all roles share. `name` is the `name` key of the config entry, else the class's name."""

    name: str = ""
    context: Context  # set by the runtime before `start`
    trusted: bool = False  # True only for the simulated home: its actuators start in mode `act`
    isolated: bool = False  # the runtime's own: this object stands for a plugin in another process

    async def start(self) -> None:
        """Acquire what is needed (connections, files). Raise to be restarted with back-off."""

    async def stop(self) -> None:
        """Let it go again; called once, also after a failed start."""


class Sensor(Plugin):
    """Says what it perceives: world -> Observation (or Feedback)."""

    @abstractmethod
    async def sense(self, emit: Emit) -> None:
        """Run for as long as there is something to say; returning ends the sensor, raising restarts it."""


class Perceiver(Plugin):
    """Judges what matters: (world, Observation) -> situations. Pure: same input, same output, nothing kept."""

    @abstractmethod
    def perceive(self, world: World, observation: Observation) -> Iterable[Situation]:
        """The situations this observation wakes, often none. `observation` is already in `world`."""


class Rule(Plugin):
    """Says no: a person's standing instruction that no training can move."""

    @abstractmethod
    def judge(self, percept: Percept, action: Action, now: datetime) -> str | None:
        """The reason to refuse the action in one sentence, or None. `now` is aware and local."""


class Actuator(Plugin):
    """Carries out commands: Command -> Outcome."""

    @abstractmethod
    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        """Scope -> the tools this plugin offers there. Each tool's `actuator` names what the mode switch is for."""

    @abstractmethod
    async def act(self, command: Command) -> Outcome:
        """Carry it out and say what became of it; raise if it could not even be tried."""


class Critic(Plugin):
    """Notices feedback in what happens: journalled messages -> Feedback."""

    @abstractmethod
    def criticise(self, message: Observation | Percept | Decision | Command | Outcome) -> Iterable[Feedback]:
        """Called with every message once it is committed, in order. May keep what it needs to remember."""


ROLES: tuple[type[Plugin], ...] = (Sensor, Perceiver, Rule, Actuator, Critic)


async def answer(given: T | Awaitable[T]) -> T:
    """What a plugin answered; one in a process of its own (`isolated`) has to be waited for."""
    return await given if isinstance(given, Awaitable) else given


def observe(topic: str, value: object, *, at: float, source: str = "", id: str = "") -> Observation:
    """An Observation of a JSON-able value; without an `id` it gets a fresh one (so it is never a duplicate)."""
    return Observation(id=id or new_id("ob"), topic=topic, payload=msgspec.json.encode(value), at=at, source=source)
