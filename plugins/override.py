"""Critic: a person's act on a device soon after one of our decisions is a correction, with its evidence.

A device's topic says what the device shows. A report is a person's act if it *changes* what was shown and is none of:

- the echo of our command, also late, rounded by the device, or half-way there while it moves;
- a known automation or the app (they say so in the message), or a guest, whose taste is not to be learnt;
- later than `window` seconds after the newest decision of its scope (`nothing` is a decision too).

What would have been right is read from the room, not from the single act: compared with the devices as the decision
found them, what has the person made different? One device more: that act. Nothing (they undid us): `nothing`.
Where a decision was not carried out (mode `observe` or `apprentice`, or refused) and the person then does just that by hand, it
is an acceptance.
Not covered: an automation or a guest that does not say who it is cannot be told from a resident, and what was
decided before a restart is forgotten, so an act that answers it is missed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from plugins.set_points import between, same, set_point
from runtime.messages import (
    NOTHING,
    Action,
    Command,
    Decision,
    Feedback,
    Observation,
    Outcome,
    Percept,
    Scalar,
    derived_id,
)
from runtime.roles import Critic

ORIGIN_KEYS = ("by", "origin", "source", "who")
VALUE_KEYS = ("state", "value", "level")
REHEARSAL = "rehearsal"
FINAL = {"refused", "denied", "expired", "failed", "none", "observed", "asked"}  # the command has no effect to wait for


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device whose topics do not follow `pattern`. `path` is where its value is in the message, `a.b` deep."""

    actuator: str
    scope: str
    topic: str
    path: str = ""
    argument: str = "level"
    step: float = 1.0  # distance of two set-points, if they are numbers


@dataclass
class _Tool:
    """What we know of an actuator from our own decisions: the name of its one argument, and its set-points."""

    argument: str
    values: list[Scalar]


@dataclass
class _Trace:
    """What one decision found, and what has happened to its scope's devices since."""

    decision: Decision
    found: dict[str, Scalar]
    touched: dict[str, Device] = field(default_factory=dict)  # by a person, in order of the last touch
    said: Action | None = None  # the correction already given
    silent: bool = False  # it was not carried out: what people do then is all their own


@dataclass
class Override(Critic):
    """[[plugin]]
    use = "plugins.override:Override"
    pattern = "home/{scope}/{device}"   # the topics of the devices; the actuator is called scope_device
    window = 120.0                      # seconds after a decision in which an act is an answer to it
    settle = 10.0                       # seconds a device may take to show a command
    known = ["timer", "app"]            # origins (`by` in the message) that are not people
    guests = ["guest*"]                 # people whose acts teach nothing
    actuators = ["*_lamp", "*_blind"]   # devices to watch from the first moment; the others once we could choose them
    """

    pattern: str = "home/{scope}/{device}"
    window: float = 120.0
    settle: float = 10.0
    known: list[str] = field(default_factory=lambda: ["timer", "app", "automation*", "corrigible*"])
    guests: list[str] = field(default_factory=lambda: ["guest*"])
    actuators: list[str] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._shown: dict[str, Scalar] = {}  # actuator -> what the device last showed
        self._pending: dict[str, list[tuple[Command, Scalar]]] = {}  # actuator -> commands whose echo may still come
        self._owner: dict[str, str] = {}  # actuator -> scope
        self._traces: dict[str, _Trace] = {}  # scope -> its newest decision
        self._deciding: dict[str, str] = {}  # scope -> the percept we are thinking about
        self._tools: dict[str, _Tool] = {}  # what our decisions could have chosen from: so we know our actuators

    def criticise(self, message: Observation | Percept | Decision | Command | Outcome) -> Iterable[Feedback]:
        if isinstance(message, Percept) and not message.synthetic:
            self._deciding[message.scope] = message.id
        elif isinstance(message, Decision):
            self._decided(message)
        elif isinstance(message, Command):
            self._know(message.action)
            values = list(message.action.arguments.values())
            alive = self._alive(message.actuator, message.at)  # a device that never reports must not gather them
            self._pending[message.actuator] = [*alive, (message, values[0] if len(values) == 1 else None)]
        elif isinstance(message, Outcome) and message.status in FINAL:
            self._not_done(message)
        elif isinstance(message, Observation):
            return tuple(self._reported(message))
        return ()

    def _decided(self, decision: Decision) -> None:
        for action in (*decision.actions, *(candidate.action for candidate in decision.candidates)):
            self._know(action)
        if decision.note == REHEARSAL:
            return
        if self._deciding.get(decision.scope) == decision.percept_id:
            del self._deciding[decision.scope]
        found = {name: value for name, value in self._shown.items() if self._owner.get(name) == decision.scope}
        self._traces[decision.scope] = _Trace(decision, found)

    def _not_done(self, outcome: Outcome) -> None:
        for trace in self._traces.values():
            if trace.decision.id == outcome.decision_id:
                trace.silent = True
        for actuator, row in self._pending.items():
            self._pending[actuator] = [pair for pair in row if pair[0].id != outcome.command_id]

    def _know(self, action: Action) -> None:
        if len(action.arguments) == 1:
            (argument, value), *_ = action.arguments.items()
            values = self._tools.setdefault(action.tool, _Tool(argument, [])).values
            if value not in values:
                values.append(value)

    def _reported(self, observation: Observation) -> Iterator[Feedback]:
        device = self._device(observation.topic)
        if device is None:
            return
        value, origin = _state(observation, device)
        if value is None:
            return
        before = self._shown.get(device.actuator)
        self._shown[device.actuator] = value
        self._owner[device.actuator] = device.scope
        if not self._is_actuator(device) or (before is not None and same(before, value, device.step)):
            return  # a sensor, or said again
        if self._echo(device, before, value, observation.at):
            return
        if self._matches(origin, (*self.known, *self.guests)):
            self._rebase(device, value)
            return
        if before is None and not origin:
            return  # the first we hear of this device: not a change, as far as we know
        yield from self._judge(device, before, value, origin, observation)

    def _judge(
        self, device: Device, before: Scalar, value: Scalar, origin: str, observation: Observation
    ) -> Iterator[Feedback]:
        """A person's act: is it an answer to a decision, and what does it say was right?"""
        trace = self._traces.get(device.scope)
        if trace is None or device.scope in self._deciding:
            return
        if not 0.0 <= observation.at - trace.decision.at <= self.window:
            return
        trace.touched.pop(device.actuator, None)
        trace.touched[device.actuator] = device
        if before is not None:
            trace.found.setdefault(device.actuator, before)
        right = self._right(trace)
        decided = trace.decision.actions[0] if trace.decision.actions else NOTHING
        if right == (trace.said or (NOTHING if trace.silent else decided)):
            return
        trace.said, imitated = right, trace.silent and right == decided
        yield Feedback(
            id=derived_id("fb", trace.decision.id, observation.id),
            decision_id=trace.decision.id,
            kind="acceptance" if imitated else "override",
            source=origin or "person",
            at=observation.at,
            action=None if imitated else right,
            evidence={
                "topic": observation.topic,
                "observation": observation.id,
                "device": device.actuator,
                "before": before,
                "after": value,
                "seconds": round(observation.at - trace.decision.at, 3),
            },
        )

    def _right(self, trace: _Trace) -> Action:
        """What the person made of the room, compared with how the decision found it."""
        for actuator, device in reversed(trace.touched.items()):
            value = self._shown[actuator]
            if actuator not in trace.found or not same(trace.found[actuator], value, device.step):
                tool = self._tools.get(actuator, _Tool(device.argument, []))
                return Action(tool=actuator, arguments={tool.argument: set_point(value, device.step, tool.values)})
        return NOTHING

    def _alive(self, actuator: str, at: float) -> list[tuple[Command, Scalar]]:
        """The commands that a report at this time may still show."""
        return [pair for pair in self._pending.get(actuator, ()) if at - pair[0].at <= self.settle]

    def _echo(self, device: Device, before: Scalar, value: Scalar, at: float) -> bool:
        """Whether a report is what our command did: there, or on the way there."""
        alive = self._alive(device.actuator, at)
        self._pending[device.actuator] = alive
        for number, (command, wanted) in enumerate(alive):
            if same(wanted, value, device.step):
                self._pending[device.actuator] = alive[number + 1 :]  # what was sent before it is overtaken
                trace = self._traces.get(device.scope)
                if trace is not None and trace.decision.id != command.decision_id:
                    self._rebase(device, value)  # the late echo of an earlier decision
                return True
            if between(before, value, wanted):
                return True
        return False

    def _rebase(self, device: Device, value: Scalar) -> None:
        """An automation moved the device after the decision: that is how a person finds it now."""
        trace = self._traces.get(device.scope)
        if trace is not None and device.actuator not in trace.touched:
            trace.found[device.actuator] = value

    def _device(self, topic: str) -> Device | None:
        for device in self.devices:
            if device.topic == topic:
                return device
        levels, names = topic.split("/"), self.pattern.split("/")
        found: dict[str, str] = {}
        if len(levels) != len(names):
            return None
        for level, name in zip(levels, names, strict=True):
            if name.startswith("{") and name.endswith("}"):
                found[name[1:-1]] = level
            elif name != level:
                return None
        if set(found) != {"scope", "device"}:
            return None
        return Device(actuator=f"{found['scope']}_{found['device']}", scope=found["scope"], topic=topic)

    def _is_actuator(self, device: Device) -> bool:
        """Sensors have topics of the same shape: only what is declared, or what we once could have chosen, is a device."""
        name = device.actuator
        return (
            device in self.devices
            or name in self._tools
            or any(fnmatchcase(name, pattern) for pattern in self.actuators)
        )

    @staticmethod
    def _matches(origin: str, patterns: Iterable[str]) -> bool:
        return bool(origin) and any(fnmatchcase(origin.lower(), pattern.lower()) for pattern in patterns)


def _state(observation: Observation, device: Device) -> tuple[Scalar, str]:
    """What the device shows and who says to have done it; None if the message says neither."""
    value = _read(observation.payload)
    origin = next((observation.properties[key] for key in ORIGIN_KEYS if key in observation.properties), "")
    if isinstance(value, Mapping):
        origin = origin or next((str(value[key]) for key in ORIGIN_KEYS if value.get(key)), "")
    if isinstance(value, Mapping) or device.path:
        value = _at(value, device.path)
    return (value, origin) if isinstance(value, str | int | float) else (None, origin)


def _read(payload: bytes) -> Any:
    """JSON, or the text itself; the door has checked limits and encoding before."""
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return payload.decode(errors="replace")


def _at(value: Any, path: str) -> Any:
    if not path:
        return next((value[key] for key in VALUE_KEYS if key in value), None)
    found: Any = value
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
