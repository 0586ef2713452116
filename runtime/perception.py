"""Observation -> Percept: keeps the state of the world, says it in words, and wakes a decision when something matters.

Time: the journal stamps UTC; words use the local wall clock of `[agent] timezone` (the machine's if empty), so after a
change to daylight saving "evening" is still when the clock says evening. Durations (ages, timers) are UTC differences.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, tzinfo
from fnmatch import fnmatchcase

import structlog

from runtime import payload
from runtime.bus import Bus, Subscription
from runtime.config import PerceptionConfig
from runtime.errors import BadInput
from runtime.journal import Journal
from runtime.messages import Observation, Percept, Scalar, derived_id
from runtime.roles import Perceiver, Reading, Situation, World, answer
from runtime.words import Vocabulary, canonical, in_unit, scalars

VALUE_KEYS = ("value", "state", "level")  # keys that are the topic's own value
META_KEYS = {
    "unit",
    "by",
    "origin",
    "source",
    "id",
    "ts",
    "time",
    "producer",
    "linkquality",
    "last_seen",
    "cmd_id",
    "who",
}
SPEECH_KEYS = ("says", "text", "message")
SPEECH_LIMIT = 2000  # characters of what a person says
# sensor names of one message, of one scope, of all: every message of a scope is told with all its readings, so names without
# end (a lying sensor, ids as keys) would hold up the loop for every message that follows
MESSAGE_NAMES, SCOPE_NAMES, WORLD_NAMES = 200, 300, 5000
NAME_LIMIT = 200  # characters of one

TOGETHER = 32  # observations that share a commit, if so many wait: else the disk's sync would set the pace of all that comes in

log = structlog.get_logger("perception")


class Perception:
    """The stage. `run` is its coroutine; `readings` and `percepts` are pure enough to be used for evaluation too."""

    def __init__(
        self,
        journal: Journal,
        bus: Bus,
        config: PerceptionConfig,
        perceivers: Sequence[Perceiver],
        *,
        zone: tzinfo,
        actuators: Iterable[str] = (),
        scopes: Iterable[str] = (),
    ) -> None:
        self._journal = journal
        self._bus = bus
        self._config = config
        self._perceivers = [perceiver for perceiver in perceivers if not perceiver.isolated]
        self._elsewhere = [perceiver for perceiver in perceivers if perceiver.isolated]
        self._zone = zone
        self._actuators = frozenset(canonical(name) for name in actuators)
        self._scopes = tuple(scopes)
        self.vocabulary = Vocabulary(config.bands, numbers=config.numbers, deadband=config.deadband)
        self._readings: dict[str, Reading] = {}
        self._words: dict[str, str] = {}
        self._names: dict[str, set[str]] = {}  # scope -> names of its readings
        self._last: dict[str, tuple[str, float]] = {}  # scope -> text and time of its last percept
        self.on_reading: Callable[[Reading, bool], None] = lambda reading, fresh: None  # fresh: its age is known
        self._held: dict[str, Observation] = {}  # scope -> the newest change that came within `quiet` of its percept
        self._unmarked: dict[str, list[str]] = {}  # scope -> what came since; after a kill it is perceived once more

    async def run(self, observations: Subscription[Observation]) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                already = set(self._held)
                await self.take(*await observations.several(TOGETHER))
                for scope in self._held.keys() - already:
                    group.create_task(self._settle(scope), name=f"settle {scope}")

    async def _settle(self, scope: str) -> None:
        """What changed while the scope was quiet wakes it afterwards, if it still says something new."""
        since = self._held[scope].at - self._last[scope][1]
        await asyncio.sleep(self._config.quiet - since)
        await self.settle(scope)

    async def settle(self, scope: str) -> list[Percept]:
        """The end of a scope's quiet time: one percept for all that changed meanwhile."""
        observation = self._held.pop(scope)
        percept = self._percept(Situation(scope=scope, event_id="settled"), observation, observation.at)
        text, _ = self._last.get(scope, ("", 0.0))
        percepts = [] if percept.text == text else [percept]
        self._last[scope] = (percept.text, observation.at)
        await self._tell(self._unmarked.pop(scope, []), percepts)
        return percepts

    async def take(self, *observations: Observation) -> list[Percept]:
        """Absorb observations one after the other and publish the percepts they wake, after their common commit."""
        percepts = [percept for observation in observations for percept in await self._taken(observation)]
        await self._tell([observation.id for observation in observations if not self._waits(observation)], percepts)
        return percepts

    def _waits(self, observation: Observation) -> bool:
        """For the end of its scope's quiet time: marked as perceived now, a kill would forget what it changed."""
        if not self._held:
            return False
        scopes = [scope for scope, held in self._held.items() if held.id == observation.id]
        topic = self._scope(self._named(observation.topic))
        scope = topic if topic in self._held else next(iter(scopes), None)
        if scope is not None:
            self._unmarked.setdefault(scope, []).append(observation.id)
        return scope is not None

    async def _taken(self, observation: Observation) -> list[Percept]:
        try:
            changed = self._absorb(observation)
            world, situations = self._woken(observation, changed)
            for perceiver in self._elsewhere:
                situations.extend(await _answered(perceiver, world, observation))
            return self._worthwhile(situations, observation)
        except BadInput as error:
            await self._journal.put(payload.quarantined(observation, str(error)), patient=True)
            return []

    async def _tell(self, taken: Sequence[str], percepts: Sequence[Percept]) -> None:
        await self._journal.perceived(taken, *percepts)
        for percept in percepts:
            await self._bus.publish(percept)

    async def tick(self, clock_now: float) -> None:
        """A timer percept for every scope: what to do though nothing changed."""
        for scope in self._scopes:
            situation = Situation(scope=scope, kind="timer", event_id=f"{clock_now:.0f}")
            percept = self._percept(situation, None, clock_now)
            await self._journal.put(percept, patient=True)
            await self._bus.publish(percept)

    async def run_timer(self, clock_sleep: float) -> None:
        while clock_sleep:
            await asyncio.sleep(clock_sleep)
            await self.tick(datetime.now(self._zone).timestamp())

    def restore(self, observations: Iterable[Observation]) -> None:
        """Rebuild the world from the journal without waking anything."""
        for observation in sorted(observations, key=lambda o: o.at):
            try:
                self._absorb(observation, fresh=False)
            except BadInput:
                continue  # it is in quarantine already

    def perceive(self, observation: Observation) -> list[Percept]:
        """The percepts an observation wakes, without asking plugins in other processes. Raises BadInput if its payload cannot be
        read."""
        changed = self._absorb(observation)
        _, situations = self._woken(observation, changed)
        return self._worthwhile(situations, observation)

    def _woken(self, observation: Observation, changed: Sequence[str]) -> tuple[World, list[Situation]]:
        world = World(self._readings, self._now(observation.at))
        situations = list(self._own(observation, changed))
        for perceiver in self._perceivers:
            try:
                situations.extend(perceiver.perceive(world, observation))
            except Exception as error:  # the plugin border
                log.error("perceiver failed", plugin=perceiver.name, error=f"{type(error).__name__}: {error}")
        return world, situations

    def _worthwhile(self, situations: Iterable[Situation], observation: Observation) -> list[Percept]:
        percepts = [self._percept(situation, observation, observation.at) for situation in situations]
        return [percept for percept in percepts if self._matters(percept, observation)]

    def _now(self, at: float) -> datetime:
        """Local time; a sensor `clock` (ISO 8601) stands in for the wall clock of a simulated or recorded place."""
        for name in self._config.clock:
            reading = self._readings.get(name)
            if reading is not None and isinstance(reading.value, str):
                try:
                    return datetime.fromisoformat(reading.value)
                except ValueError:
                    break
        return datetime.fromtimestamp(at, self._zone)

    def _absorb(self, observation: Observation, *, fresh: bool = True) -> list[str]:
        """Take the readings in; the names of those whose word changed."""
        changed, said = [], dict(self._read(observation))
        self._admit(said)
        for name, value in said.items():
            before = self._words.get(name, "")
            word = self.vocabulary.word(name, value, before)
            self._readings[name] = Reading(name=name, value=value, at=observation.at)
            self._words[name] = word
            self.on_reading(self._readings[name], fresh and not observation.retained)
            if word != before:
                changed.append(name)
        return changed

    def _admit(self, said: Collection[str]) -> None:
        """Make room for new names. Raises BadInput where there is none; then nothing of the message is absorbed."""
        if len(said) > MESSAGE_NAMES:
            raise BadInput(f"the message has {len(said)} values; at most {MESSAGE_NAMES} are read")
        new = [name for name in said if name not in self._readings]
        if long := next((name for name in new if len(name) > NAME_LIMIT), None):
            raise BadInput(f"the sensor name {long[:80]!r}… has {len(long)} characters; at most {NAME_LIMIT} are read")
        if len(self._readings) + len(new) > WORLD_NAMES:
            raise BadInput(f"{WORLD_NAMES} sensor names are known already; no room for {new[0][:80]!r}")
        scopes = Counter(map(self._scope, new))
        full = next((scope for scope, n in scopes.items() if len(self._names.get(scope, ())) + n > SCOPE_NAMES), None)
        if full is not None:
            raise BadInput(
                f"{full[:80]!r} would have more than {SCOPE_NAMES} sensor names; name scopes in [perception] scopes"
            )
        for name in new:
            self._names.setdefault(self._scope(name), set()).add(name)

    def _read(self, observation: Observation) -> Iterator[tuple[str, Scalar]]:
        topic = self._named(observation.topic)
        value = payload.parse_scalar(observation.payload)
        if verbatim(value) is not None or speech(observation.topic, value) is not None:
            return
        leaves = scalars(value)
        unit = str(leaves.get("unit", ""))
        for path, leaf in leaves.items():
            if path.rsplit("/", 1)[-1] in META_KEYS:
                continue
            name = topic if path in ("", *VALUE_KEYS) else f"{topic}/{canonical(path)}"
            name = self._config.names.get(name, name)
            if isinstance(leaf, int | float) and not isinstance(leaf, bool):
                leaf = in_unit(name, leaf, unit)
            yield name, leaf

    def _named(self, topic: str) -> str:
        """`home/living_room/light` -> `living_room/light`: the first level of a topic is the installation's name."""
        if topic in self._config.names:
            return self._config.names[topic]
        first, _, rest = topic.partition("/")
        return canonical(rest or first)

    def _scope(self, name: str) -> str:
        for pattern, scope in self._config.scopes.items():
            if fnmatchcase(name, pattern):
                return scope
        return name.split("/", 1)[0]

    def _own(self, observation: Observation, changed: Sequence[str]) -> Iterator[Situation]:
        """The built-in perceiver: a person spoke, or the word of something that is not our own actuator changed."""
        value = payload.parse_scalar(observation.payload)
        scope = self._scope(self._named(observation.topic))
        whole = verbatim(value)
        if observation.retained and (whole is not None or speech(observation.topic, value) is not None):
            return  # what a broker keeps is a state; nobody is saying it now
        if whole is not None:
            yield Situation(scope=scope, kind="speech", text=whole)
            return
        spoken = speech(observation.topic, value)
        if spoken is not None:
            if not spoken.strip() or (self._scopes and scope not in self._scopes):
                return  # nobody there acts or answers
            who = str(value.get("who", "")) if isinstance(value, dict) else ""
            yield Situation(scope=scope, kind="speech", says=spoken, fields={"who": who} if who else {})
            return
        for scope in dict.fromkeys(self._scope(name) for name in changed if self._wakes(name)):
            yield Situation(scope=scope)

    def _wakes(self, name: str) -> bool:
        if name.replace("/", "_") in self._actuators or name in self._actuators:
            return False  # the echo of our own act must not ask for the next one
        if any(
            fnmatchcase(name, pattern) for pattern in (*self._config.ignore, *self._config.shared, *self._config.clock)
        ):
            return False
        return not self._scopes or self._scope(name) in self._scopes

    def _percept(self, situation: Situation, observation: Observation | None, at: float) -> Percept:
        who = str(situation.fields.get("who", ""))
        names = self._visible(situation.scope)
        fields: dict[str, Scalar] = {name: self._readings[name].value for name in names}
        text = situation.text and self.vocabulary.readings(situation.text)
        if not text:
            phrases = [self._phrase(name, at) for name in names]
            says = " ".join(situation.says.split())[:SPEECH_LIMIT]
            text = self.vocabulary.situation(self._now(at), phrases, says, who)
        cause = observation.id if observation is not None else ""
        return Percept(
            id=derived_id("pc", situation.scope, situation.kind, cause, situation.event_id),
            scope=situation.scope,
            text=text,
            at=at,
            kind=situation.kind,  # type: ignore[arg-type]
            fields={**fields, **situation.fields, **({"says": situation.says} if situation.says else {})},
            causes=(cause,) if cause else (),
        )

    def _visible(self, scope: str) -> list[str]:
        """The readings a scope's situation mentions, in a stable order: its own, then the shared ones."""
        own = sorted(self._names.get(scope, ()))
        shared = sorted(
            name for other, names in self._names.items() if other != scope
            for name in names if any(fnmatchcase(name, pattern) for pattern in self._config.shared)
        )  # fmt: skip
        hidden = (*self._config.ignore, *self._config.clock)
        return [name for name in own + shared if not any(fnmatchcase(name, pattern) for pattern in hidden)]

    def _phrase(self, name: str, at: float) -> str:
        reading = self._readings[name]
        return self.vocabulary.phrase(name, self._words[name], at - reading.at)

    def _matters(self, percept: Percept, observation: Observation) -> bool:
        """A sensor percept that says the same as the scope's last one is noise; one too soon after it has to wait."""
        text, at = self._last.get(percept.scope, ("", 0.0))
        if percept.kind == "sensor" and percept.text == text:
            return False
        if (
            percept.kind == "sensor" and 0 <= percept.at - at < self._config.quiet
        ):  # a clock set back must silence nobody
            self._held[percept.scope] = observation
            return False
        self._last[percept.scope] = (percept.text, percept.at)
        return True


async def _answered(perceiver: Perceiver, world: World, observation: Observation) -> Iterable[Situation]:
    """Of one in another process; it has a time-out of its own."""
    try:
        return await answer(perceiver.perceive(world, observation))
    except Exception as error:  # the plugin border
        log.warning("perceiver failed", plugin=perceiver.name, error=f"{type(error).__name__}: {error}")
        return ()


def verbatim(value: object) -> str | None:
    """A message that is a whole situation by itself, such as a customer's: an object with the key `input`."""
    text = value.get("input") if isinstance(value, dict) else None
    return text[:SPEECH_LIMIT] if isinstance(text, str) and text.strip() else None


def speech(topic: str, value: object) -> str | None:
    """What a person said, if that is what this message is: a topic that ends in `speech`, or an object with `says`."""
    if re.search(r"(^|/)(speech|chat|says)$", topic):
        if isinstance(value, dict):
            return next((str(value[key]) for key in SPEECH_KEYS if key in value), None)
        return value if isinstance(value, str) else None
    return str(value["says"]) if isinstance(value, dict) and isinstance(value.get("says"), str) else None
