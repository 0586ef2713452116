"""The kinds of scenes that happen in the house: when, what the sensors may feel like, how the devices were left.

Every word list is drawn from at random, so a plan spans many situations; what is right in one is not written here but
follows from the habits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from plugins.house.model import Value


@dataclass(frozen=True)
class Plan:
    """One kind of scene. `feels` maps a sensor to its possible words, `devices` a device to its possible states."""

    room: str
    hours: tuple[int, ...]
    feels: dict[str, str]
    devices: dict[str, tuple[Value, ...]] = field(default_factory=dict)
    weight: float = 1.0
    talk: float = 0.8  # chance that somebody speaks in it


def _span(first: int, last: int) -> tuple[int, ...]:
    """Hours from first to last, over midnight if need be."""
    return tuple(range(first, last)) if first < last else (*range(first, 24), *range(last))


_OCCUPIED = "occupied"
PLANS = (
    Plan(
        "living_room", _span(17, 24), {"light": "dark dim", "temperature": "cool mild warm", "presence": _OCCUPIED, "tv": "off off playing"},
        {"lamp": ("off",), "blind": ("up", "down")}, weight=2.5, talk=0.9,
    ),
    Plan(
        "living_room", _span(18, 23), {"light": "dim dark", "temperature": "mild warm", "presence": _OCCUPIED, "tv": "off playing"},
        {"lamp": ("dim", "bright"), "blind": ("up", "down")}, talk=0.9,
    ),
    Plan(
        "living_room", _span(6, 12), {"light": "dark", "temperature": "cold cool mild", "presence": _OCCUPIED, "tv": "off"},
        {"lamp": ("off",), "blind": ("up", "down")}, weight=0.8,
    ),
    Plan(
        "living_room", _span(9, 18), {"light": "bright glaring", "temperature": "mild warm", "presence": _OCCUPIED, "tv": "playing playing off"},
        {"lamp": ("off",), "blind": ("up",)}, weight=1.5, talk=0.9,
    ),
    Plan(
        "living_room", _span(8, 24), {"light": "dim bright", "temperature": "cool mild", "presence": "empty", "tv": "off"},
        {"lamp": ("dim", "bright"), "blind": ("up", "down")}, talk=0.0,
    ),
    Plan(
        "living_room", _span(9, 16), {"light": "bright", "temperature": "mild", "presence": _OCCUPIED, "tv": "off"},
        {"lamp": ("bright", "dim"), "blind": ("up",)}, weight=0.7,
    ),
    Plan(
        "living_room", _span(8, 17), {"light": "dim bright", "temperature": "cool mild warm", "presence": "occupied empty", "tv": "off"},
        {"lamp": ("off",), "blind": ("down", "up")}, weight=0.8, talk=0.9,
    ),
    Plan(
        "kitchen", _span(6, 21), {"light": "dim bright", "co2": "stuffy bad", "presence": _OCCUPIED},
        {"lamp": ("off", "bright"), "fan": ("off",)}, weight=1.2,
    ),
    Plan(
        "kitchen", _span(6, 23), {"light": "dim bright dark", "co2": "fresh used", "presence": "occupied empty"},
        {"lamp": ("off",), "fan": ("high",)}, weight=0.8,
    ),
    Plan(
        "kitchen", _span(17, 7), {"light": "dark", "co2": "fresh used", "presence": _OCCUPIED},
        {"lamp": ("off",), "fan": ("off",)}, weight=1.2, talk=0.9,
    ),
    Plan(
        "kitchen", _span(7, 24), {"light": "dim bright", "co2": "fresh used", "presence": "empty"},
        {"lamp": ("bright",), "fan": ("off",)}, weight=0.8, talk=0.0,
    ),
    Plan(
        "kitchen", _span(7, 20), {"light": "dim bright", "co2": "fresh used", "presence": _OCCUPIED},
        {"lamp": ("off",), "fan": ("off",)}, weight=0.8, talk=1.0,
    ),
    Plan(
        "bedroom", _span(5, 8), {"co2": "fresh used stuffy", "light": "dark dim", "temperature": "cold", "presence": _OCCUPIED},
        {"lamp": ("off",), "blind": ("down", "up"), "heating": (17,)}, weight=1.4, talk=0.5,
    ),
    Plan(
        "bedroom", _span(5, 8), {"co2": "fresh used stuffy", "light": "dark dim", "temperature": "cool mild", "presence": _OCCUPIED},
        {"lamp": ("off",), "blind": ("down",), "heating": (17, 19)}, weight=1.4, talk=0.4,
    ),
    Plan(
        "bedroom", _span(8, 11), {"co2": "fresh used stuffy", "light": "dim dark", "temperature": "cool mild", "presence": _OCCUPIED},
        {"lamp": ("off",), "blind": ("down",), "heating": (17, 19)}, weight=1.2, talk=0.5,
    ),
    Plan(
        "bedroom", _span(22, 5), {"co2": "fresh used stuffy", "light": "dark", "temperature": "mild warm", "presence": _OCCUPIED},
        {"lamp": ("off", "dim"), "blind": ("down",), "heating": (19, 21)}, weight=1.4, talk=0.9,
    ),
    Plan(
        "bedroom", _span(21, 3), {"co2": "fresh used stuffy", "light": "dark", "temperature": "cold cool", "presence": _OCCUPIED},
        {"lamp": ("dim", "off"), "blind": ("down",), "heating": (17,)}, weight=1.2, talk=0.9,
    ),
    Plan(
        "bedroom", _span(19, 22), {"co2": "fresh used stuffy", "light": "dark", "temperature": "cool mild", "presence": _OCCUPIED},
        {"lamp": ("off", "dim"), "blind": ("up",), "heating": (17, 19)}, weight=1.2, talk=0.8,
    ),
    Plan(
        "bedroom", _span(11, 19), {"co2": "fresh used stuffy", "light": "dim bright", "temperature": "cool mild warm", "presence": "empty occupied"},
        {"lamp": ("off",), "blind": ("up",), "heating": (17, 19)}, weight=0.6,
    ),
    Plan(
        "bathroom", _span(5, 22), {"temperature": "cool mild warm", "light": "dark dim bright", "humidity": "humid", "presence": _OCCUPIED}, {"fan": ("off",)}, talk=0.4,
    ),
    Plan(
        "bathroom", _span(22, 5), {"temperature": "cool mild warm", "light": "dark dim", "humidity": "humid", "presence": "occupied empty"}, {"fan": ("off",)}, talk=0.2,
    ),
    Plan(
        "bathroom", _span(5, 23), {"temperature": "cool mild warm", "light": "dark dim bright", "humidity": "normal dry", "presence": "occupied empty"}, {"fan": ("low", "high")}, talk=0.2,
    ),
    Plan(
        "bathroom", _span(5, 23), {"temperature": "cool mild warm", "light": "dark dim bright", "humidity": "normal dry", "presence": _OCCUPIED}, {"fan": ("off",)}, weight=0.8, talk=0.7,
    ),
    Plan(
        "hall", _span(22, 5), {"temperature": "cold cool mild", "light": "dark", "presence": _OCCUPIED, "door": "closed"}, {"lamp": ("off",)}, weight=1.2, talk=0.7,
    ),
    Plan(
        "hall", _span(16, 22), {"temperature": "cool mild", "light": "dark dim", "presence": _OCCUPIED, "door": "open closed"}, {"lamp": ("off",)}, talk=0.8,
    ),
    Plan(
        "hall", _span(7, 2), {"temperature": "cool mild", "light": "dim bright", "presence": "empty", "door": "closed"}, {"lamp": ("dim", "bright")}, talk=0.0,
    ),
    Plan(
        "hall", _span(8, 17), {"temperature": "cool mild", "light": "bright dim", "presence": _OCCUPIED, "door": "open closed"}, {"lamp": ("off",)}, weight=0.6, talk=0.7,
    ),
)  # fmt: skip
