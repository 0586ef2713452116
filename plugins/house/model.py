"""The simulated home: its rooms, sensors and devices, and what a device shows after a command. No input or output here.

Sensors (numbers in canonical units, states in words) are published room by room as one message, as a multi-sensor does;
devices take absolute set-points. `feel` and `sample` are the house's own idea of dark, cold or humid: the resident is a
person and thinks in such words, and the sensors read a number anywhere inside them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.catalogue import DO_NOTHING, Catalogue, Tool
from runtime.messages import NOTHING, Action, Scalar

Value = str | int


@dataclass(frozen=True)
class Device:
    """One actuator of a room; `values` are its set-points."""

    room: str
    name: str
    values: tuple[Value, ...]

    @property
    def actuator(self) -> str:
        return f"{self.room}_{self.name}"

    @property
    def topic(self) -> str:
        return f"home/{self.room}/{self.name}"

    def read(self, text: str) -> Value | None:
        """The set-point a payload stands for, None if it is none of them."""
        return next((value for value in self.values if str(value) == text.strip()), None)


DEVICES = (
    Device("living_room", "lamp", ("off", "dim", "bright")),
    Device("living_room", "blind", ("up", "down")),
    Device("kitchen", "lamp", ("off", "bright")),
    Device("kitchen", "fan", ("off", "high")),
    Device("bedroom", "lamp", ("off", "dim")),
    Device("bedroom", "blind", ("up", "down")),
    Device("bedroom", "heating", (17, 19, 21)),
    Device("bathroom", "fan", ("off", "low", "high")),
    Device("hall", "lamp", ("off", "dim", "bright")),
)
ROOMS = tuple(dict.fromkeys(device.room for device in DEVICES))
BY_ACTUATOR: Mapping[str, Device] = {device.actuator: device for device in DEVICES}

# What each room's sensors measure; with the two outside that is 21 sensors, and the house's clock.
SENSORS: Mapping[str, tuple[str, ...]] = {
    "living_room": ("light", "temperature", "presence", "tv"),
    "kitchen": ("light", "co2", "presence"),
    "bedroom": ("light", "temperature", "co2", "presence"),
    "bathroom": ("humidity", "temperature", "light", "presence"),
    "hall": ("light", "temperature", "presence", "door"),
    "outside": ("rain", "wind"),
}

# quantity -> word -> from, to: how a person would call it. No value lies right at the border of two words, where two
# people (and a deadband) would disagree.
FEELS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "light": {"dark": (0.5, 9), "dim": (12, 140), "bright": (170, 4500), "glaring": (5500, 20000)},
    "temperature": {"cold": (12, 16.6), "cool": (17.4, 19.1), "mild": (20, 22.5), "warm": (23.5, 26)},
    "humidity": {"dry": (22, 34), "normal": (37, 58), "humid": (62, 95)},
    "co2": {"fresh": (420, 585), "used": (620, 880), "stuffy": (930, 1370), "bad": (1450, 2400)},
    "rain": {"no": (0, 0), "light": (0.1, 1.8), "heavy": (2.5, 12)},
    "wind": {"calm": (0, 2.8), "breezy": (3.4, 7.6), "windy": (8.5, 13)},
}


def sample(quantity: str, word: str, rng: random.Random) -> Scalar:
    """A sensor value a person would call by this word; states (tv, door) and presence are their own word."""
    if quantity == "presence":
        return word == "occupied"
    if quantity not in FEELS:
        return word
    low, high = FEELS[quantity][word]
    if quantity in ("light", "co2") and low:
        return round(float(low * (high / low) ** rng.random()), 1)
    return round(rng.uniform(low, high), 1)


def feel(quantity: str, value: Scalar) -> str:
    """What a person would call this value."""
    if quantity == "presence":
        return "occupied" if value else "empty"
    if quantity not in FEELS or not isinstance(value, int | float):
        return str(value)
    return next((word for word, (_, high) in FEELS[quantity].items() if value <= high), str(value))


def tools() -> dict[str, tuple[Tool, ...]]:
    """Room -> what its devices can be set to."""
    return {room: tuple(_tool(device) for device in DEVICES if device.room == room) for room in ROOMS}


def catalogue(room: str) -> Catalogue:
    """What may be chosen in a room: its devices and `nothing`, in the order the runtime has them."""
    return Catalogue(tools=(DO_NOTHING, *tools()[room]))


def _tool(device: Device) -> Tool:
    return Tool(
        name=device.actuator,
        arguments={"level": {"enum": list(device.values)}},
        required=("level",),
        actuator=device.actuator,
        description=f"sets the {device.name} of the {device.room.replace('_', ' ')}",
    )


def set_to(actuator: str, value: Value) -> Action:
    """The action that sets a device."""
    return Action(tool=actuator, arguments={"level": value})


def after(devices: Mapping[str, Value], action: Action) -> dict[str, Value]:
    """The states of the devices once an action has been carried out."""
    if action == NOTHING:
        return dict(devices)
    return {**devices, action.tool: action.arguments["level"]}


def spell(action: Action) -> str:
    """The action's text, the same in every catalogue."""
    return " ".join([action.tool, *map(str, action.arguments.values())])
