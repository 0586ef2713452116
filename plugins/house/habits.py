"""What the resident wants: eight habits, half of which change once. (room, hour, what it feels like, devices) -> Action.

    1 evening mood      a dark living room in the evening: lamp bright -> dim; for a film: lamp dim -> off       changes
    2 glare             television against the sun: blind down; said: blind down, or up for daylight
    3 nobody there      a lamp in an empty or sunny room goes off
    4 warmth            cold early in the bedroom, or said to be cold: heating 21 -> 19, they save now           changes
    5 getting up        bedroom blind up early in the morning -> only later in the morning                       changes
    6 bedtime           a warm bedroom at night: heating 17; off to bed: lamp off; blind down in the evening
    7 air               steam and cooking: fan on (at night the bathroom fan is low), off when the air is good
    8 hall light        a dark hall: lamp bright; at night bright -> dim, because of the baby                    changes

The right action is the *change* that is needed: what already is as it should be needs `nothing`. `old` and `new` are
the two eras. Written to be plausible, not to suit a learner.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from plugins.house.model import Value, set_to
from plugins.house.phrases import INTENTS, Intent
from runtime.messages import NOTHING, Action

Era = Literal["old", "new"]
Feel = Mapping[str, str]  # quantity -> the word a person has for it
Wish = tuple[str, Value] | None  # device of the room, set-point

CHANGED = frozenset({1, 4, 5, 8})
HABITS = 8


def needed(room: str, now: datetime, feel: Feel, devices: Mapping[str, Value], era: Era, intent: str = "") -> Action:
    """The one right action. With an `intent` a person asked for something; otherwise the habits speak."""
    wish = _said(INTENTS[intent], era) if intent else WISHES[room](now.hour, feel, devices, era)
    if wish is None or devices[f"{room}_{wish[0]}"] == wish[1]:
        return NOTHING
    return set_to(f"{room}_{wish[0]}", wish[1])


def _said(intent: Intent, era: Era) -> Wish:
    if not intent.device:
        return None
    return intent.device, intent.old if era == "old" else intent.new


def night(hour: int) -> bool:
    return hour >= 22 or hour < 5


def _living_room(hour: int, feel: Feel, devices: Mapping[str, Value], era: Era) -> Wish:
    if feel["presence"] == "empty":
        return "lamp", "off"
    sunny = feel["light"] in ("bright", "glaring")
    if feel["tv"] == "playing" and sunny and devices["living_room_blind"] == "up":
        return "blind", "down"
    if sunny:
        return "lamp", "off"
    if hour >= 17:
        return "lamp", "bright" if era == "old" else "dim"
    return ("lamp", "bright") if feel["light"] == "dark" else None


def _kitchen(hour: int, feel: Feel, devices: Mapping[str, Value], era: Era) -> Wish:
    if feel["co2"] in ("stuffy", "bad") and feel["presence"] == "occupied":
        return "fan", "high"
    if feel["co2"] in ("fresh", "used") and devices["kitchen_fan"] != "off":
        return "fan", "off"
    if feel["presence"] == "empty":
        return "lamp", "off"
    return ("lamp", "bright") if feel["light"] == "dark" else None


def _bedroom(hour: int, feel: Feel, devices: Mapping[str, Value], era: Era) -> Wish:
    if feel["presence"] == "empty":
        return None
    if night(hour):
        return ("heating", 17) if feel["temperature"] in ("mild", "warm") else None
    if hour < 8 and feel["temperature"] == "cold":
        return "heating", 21 if era == "old" else 19
    if hour < 8:
        return ("blind", "up") if era == "old" else None
    if hour < 11:
        return "blind", "up"
    return ("blind", "down") if hour >= 19 and feel["light"] == "dark" else None


def _bathroom(hour: int, feel: Feel, devices: Mapping[str, Value], era: Era) -> Wish:
    if feel["humidity"] == "humid":
        return "fan", "low" if night(hour) else "high"
    return "fan", "off"


def _hall(hour: int, feel: Feel, devices: Mapping[str, Value], era: Era) -> Wish:
    if feel["presence"] == "empty":
        return "lamp", "off"
    if feel["light"] != "dark":
        return None
    return "lamp", "dim" if night(hour) and era == "new" else "bright"


WISHES = {
    "living_room": _living_room,
    "kitchen": _kitchen,
    "bedroom": _bedroom,
    "bathroom": _bathroom,
    "hall": _hall,
}
