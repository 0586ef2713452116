"""One `actuators` entry of the MQTT plugin: the tool it offers, the payload of a command, and what counts as done."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from runtime import payload
from runtime.catalogue import Tool
from runtime.errors import BadConfig, BadInput

STEPS = 256  # a range with at most so many steps is offered as a list of values
STATE_KEYS = ("state", "value", "level")
SAME = {"true": "on", "false": "off", "1": "on", "0": "off"}  # how devices write a switch


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`values`, or `minimum` and `maximum`, say what it can be set to."""

    name: str
    scope: str
    topic: str  # where commands go
    argument: str = "level"
    values: list[str | int | float | bool] = []
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    payload: str = "$value"  # `$value` stands for the set-point
    state_topic: str = ""  # where it says how it is
    state_path: str = ""  # where in that message, such as `climate.setpoint`; empty: the value, or its key state
    confirm: Literal["auto", "state", "ack", "none"] = "auto"  # auto: `state` if there is a state topic
    once: bool = (
        False  # told at most once (a bell, a feeder): what cannot be confirmed is uncertain, and never repeated
    )
    description: str = ""

    @property
    def confirmation(self) -> Literal["state", "ack", "none"]:
        if self.confirm != "auto":
            return self.confirm
        return "state" if self.state_topic else "none"

    def check(self) -> None:
        """Raises BadConfig in one sentence if the entry contradicts itself."""
        where = f"actuator {self.name!r}"
        if not self.name or " " in self.name:
            raise BadConfig(f"{where}: the name must be one word without spaces")
        for topic in (self.topic, self.state_topic):
            if "+" in topic or "#" in topic:
                raise BadConfig(f"{where}: {topic!r} has a wildcard; a device has one topic")
        if not self.topic:
            raise BadConfig(f"{where}: topic is empty; write the topic that the device listens to")
        if not self.values and (self.minimum is None or self.maximum is None or self.minimum > self.maximum):
            raise BadConfig(f'{where}: say what it can be set to: values = ["off", "on"], or minimum and maximum')
        if self.confirm == "state" and not self.state_topic:
            raise BadConfig(f"{where}: confirm = 'state' needs a state_topic")
        if "$value" not in self.payload:
            raise BadConfig(f"{where}: payload = {self.payload!r} does not mention $value")

    def tool(self) -> Tool:
        return Tool(
            name=self.name, arguments={self.argument: self._schema()}, required=(self.argument,), actuator=self.name,
            description=self.description, once=self.once,
        )  # fmt: skip

    def _schema(self) -> dict[str, Any]:
        if self.values:
            return {"enum": list(self.values)}
        assert self.minimum is not None
        assert self.maximum is not None
        low, high, step = float(self.minimum), float(self.maximum), float(self.step or 0)
        if step and (high - low) / step <= STEPS:
            return {"enum": [_number(low + n * step) for n in range(int((high - low) / step + 1e-9) + 1)]}
        whole = step >= 1 and step.is_integer() and low.is_integer()
        return {"type": "integer" if whole else "number", "minimum": _number(low), "maximum": _number(high)}

    def message(self, value: object) -> bytes:
        """What is published to set the device."""
        text = msgspec.json.encode(value).decode()
        inside = text[1:-1] if isinstance(value, str) else text
        bare = value if isinstance(value, str) and self.payload == "$value" else inside
        return self.payload.replace("$value", str(bare)).encode()

    def shows(self, body: bytes, value: object) -> bool:
        """Whether this message of the state topic says that the device is at `value`."""
        try:
            state = self._state(payload.parse_scalar(body))
        except BadInput:
            return False
        if _is_number(state) and _is_number(value):
            return abs(float(state) - float(str(value))) <= self._rounding() + 1e-9
        return _word(state) == _word(value)

    def _state(self, state: Any) -> Any:
        if self.state_path:
            for key in self.state_path.split("."):
                state = state.get(key) if isinstance(state, Mapping) else None
            return state
        if isinstance(state, Mapping):
            return next((state[key] for key in STATE_KEYS if key in state), None)
        return state

    def _rounding(self) -> float:
        """Half the distance to the next set-point, at most a half: 127 is as good as 127.4."""
        numbers = sorted(float(value) for value in self._schema().get("enum", ()) if _is_number(value))
        gaps = [b - a for a, b in itertools.pairwise(numbers) if b > a]
        return min([0.5, *(gap / 2.001 for gap in gaps)])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: float) -> int | float:
    value = round(value, 6)
    return int(value) if value.is_integer() else value


def _word(value: object) -> str:
    text = str(value).strip().casefold()
    return SAME.get(text, text)
