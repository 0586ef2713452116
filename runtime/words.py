"""Quantities as words: a small language model does not learn thresholds from digits, it learns words.

Canonical names are `place/quantity` in lower case; canonical units are °C, lux, %, ppm, W, hPa, dB. The words are part of
the canonical form, so the table, the memory and the weights all see the same situation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from runtime.errors import BadConfig
from runtime.messages import Scalar

STALE = 6 * 3600.0  # seconds after which a reading is called old

DEFAULT_BANDS: Mapping[str, Sequence[str | float]] = {
    "light": ["dark", 10, "dim", 150, "bright", 5000, "glaring"],
    "temperature": ["freezing", 3, "cold", 17, "cool", 19.5, "mild", 23, "warm", 27, "hot"],
    "humidity": ["dry", 35, "normal", 60, "humid"],
    "co2": ["fresh", 600, "used", 900, "stuffy", 1400, "bad"],
    "slope": ["falling fast", -1, "falling", -0.2, "steady", 0.2, "rising", 1, "rising fast"],
    "sound": ["silent", 0.1, "quiet", 0.5, "lively", 1.5, "loud"],
    "power": ["off", 2, "idle", 15, "working", 1000, "heavy"],
    "wind": ["calm", 3, "breezy", 8, "windy", 14, "stormy"],
    "rain": ["no", 0.05, "light", 2, "heavy"],
    "brightness": ["off", 1, "low", 85, "medium", 170, "full"],
}
SYNONYMS = {
    "illuminance": "light", "illuminance_lux": "light", "lux": "light", "temp": "temperature", "noise": "sound",
    "occupancy": "presence", "motion": "presence", "pir": "presence", "people": "presence", "wind_speed": "wind",
    "local_temperature": "temperature", "carbon_dioxide": "co2",
}  # fmt: skip
UNITS: dict[str, tuple[str, Callable[[float], float]]] = {
    "f": ("temperature", lambda v: (v - 32) / 1.8),
    "k": ("temperature", lambda v: v - 273.15),
    "klx": ("light", lambda v: v * 1000),
}
TRUE_WORDS = {"on", "true", "yes", "open", "detected", "home", "present"}
FALSE_WORDS = {"off", "false", "no", "closed", "clear", "away", "absent"}
READINGS = re.compile(r"(?<![\w=])([A-Za-z][\w.]*)=(\S*)")
_OBEYED = re.compile(  # control characters, those that turn text round, and those that nobody sees (tags can hide a text)
    "[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff\\U000e0000-\\U000e007f]"
)
NUMBER = re.compile(r"^(-?\d+(?:\.\d+)?)([A-Za-z%°]*)$")


@dataclass(frozen=True)
class Bands:
    """The words of one quantity: `words[i]` holds below `limits[i]`."""

    words: tuple[str, ...]
    limits: tuple[float, ...]

    @classmethod
    def read(cls, name: str, row: Sequence[str | float]) -> Bands:
        words, limits = row[::2], row[1::2]
        ordered = all(isinstance(x, int | float) for x in limits) and list(limits) == sorted(limits)
        if len(row) % 2 == 0 or not ordered or not all(isinstance(w, str) for w in words):
            raise BadConfig(
                f'[perception] bands.{name}: write words and rising limits by turns, as in ["dark", 10, "bright"]'
            )
        return cls(tuple(map(str, words)), tuple(map(float, limits)))

    def index(self, value: float) -> int:
        return sum(value >= limit for limit in self.limits)

    def word(self, value: float, before: str = "", deadband: float = 0.0) -> str:
        """The word for a value; near a limit the word said `before` stays (hysteresis of `deadband`, relative)."""
        index = self.index(value)
        if before in self.words and abs(self.words.index(before) - index) == 1:
            limit = self.limits[min(self.words.index(before), index)]
            if abs(value - limit) < deadband * abs(limit):
                return before
        return self.words[index]


def quantity(name: str) -> str:
    """`living_room/illuminance` -> `light`."""
    last = name.rsplit("/", 1)[-1]
    return SYNONYMS.get(last, last)


def canonical(name: str) -> str:
    """Lower case, `/` between levels, `_` for everything else that is not a letter or digit. Remembered, if it is not too long:
    the same names come again and again."""
    return _known(name) if len(name) <= 200 else _canonical(name)


def _canonical(name: str) -> str:
    levels = (re.sub(r"[^0-9a-z]+", "_", level.lower()).strip("_") for level in name.split("/"))
    return "/".join(level for level in levels if level)


_known = lru_cache(maxsize=4096)(_canonical)


def plain(text: str, marks: str = "") -> str:
    """A stranger's text as data: it cannot end its quotation, nor (`marks`: what parts them) pose as another sensor, nor
    carry what screens and terminals obey."""
    return " ".join(_OBEYED.sub(" ", text).replace('"', "'").translate({ord(mark): " " for mark in marks}).split())


def in_unit(name: str, value: float, unit: str) -> float:
    """The value in the canonical unit of its quantity."""
    kind, convert = UNITS.get(unit.lower().lstrip("°"), ("", float))
    return convert(value) if kind == quantity(name) else value


class Vocabulary:
    """Renders readings in words, with the configured bands before the default ones."""

    def __init__(self, bands: Mapping[str, Sequence[str | float]], *, numbers: bool, deadband: float) -> None:
        merged = {**DEFAULT_BANDS, **bands}
        self._bands = {name: Bands.read(name, row) for name, row in merged.items()}
        self._numbers = numbers
        self._deadband = deadband

    def word(self, name: str, value: Scalar, before: str = "") -> str:
        """One value in words. `before` is the word it had, for hysteresis."""
        if value is None:
            return "unknown"
        state = truth(value)
        if quantity(name) == "presence" and state is not None:
            return "occupied" if state else "empty"
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, str):
            return plain(value, marks=",;").lower().replace("_", " ")[:80]
        bands = self._bands.get(name) or self._bands.get(quantity(name))
        if bands is None:
            return f"{float(f'{value:.3g}'):g}"
        word = bands.word(float(value), before, self._deadband)
        return f"{word} ({value:g})" if self._numbers else word

    def phrase(self, name: str, word: str, age: float | None = None) -> str:
        """`living_room/light`, `dim` -> `light dim`; the scope is said by the situation itself."""
        place, _, last = name.rpartition("/")
        old = " (long ago)" if age is not None and age > STALE else ""
        label = quantity(last).replace("_", " ")
        return f"{label} {word}{old}" if place else f"{name} {word}{old}"

    def situation(self, now: datetime, phrases: Sequence[str], says: str = "", who: str = "") -> str:
        """The whole text: part of the day, what the sensors say, what a person says."""
        parts = [", ".join([part_of_day(now), *phrases])]
        if says:
            parts.append(f'{plain(who, marks=";")[:80] or "someone"} says: "{plain(says)}"')
        return "; ".join(parts)

    def readings(self, text: str) -> str:
        """A line of `name=value` readings in words, each value of a list (`121/34/53`) in turn; other text as it is."""
        found = READINGS.findall(text)
        if sum(NUMBER.match(value.split("/")[0]) is not None for _, value in found) < 2:
            return text
        head = READINGS.sub("", text).strip()
        return ", ".join(([clock_words(head)] if head else []) + [self._reading(name, value) for name, value in found])

    def _reading(self, name: str, value: str) -> str:
        *values, last = value.split("/")
        unit = (match := NUMBER.match(last)) and match[2]
        words = [self._listed(canonical(name), item, unit or "") for item in [*values, last]]
        return f"{canonical(name)} {' '.join(words)}"

    def _listed(self, name: str, item: str, unit: str) -> str:
        match = NUMBER.match(item)
        if match is None or quantity(name) == "presence":
            return item or "missing"
        return self.word(name, in_unit(name, float(match[1]), match[2] or unit)).replace(" ", "-")


def truth(value: Scalar) -> bool | None:
    """What a sensor means by on and off; None if it is neither."""
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None
    if value is None:
        return None
    return bool(value) if isinstance(value, bool) or value in (0, 1) else None


PARTS = (
    (5, "night"),
    (8, "early morning"),
    (11, "morning"),
    (14, "midday"),
    (17, "afternoon"),
    (19, "early evening"),
    (22, "evening"),
    (24, "night"),
)


def part_of_day(now: datetime) -> str:
    """Local wall-clock time in words: what the clock on the wall shows, so a habit keeps its hour over daylight saving."""
    day = "weekend" if now.weekday() >= 5 else "weekday"
    return f"{day} {next(word for hour, word in PARTS if now.hour < hour)}"


def clock_words(text: str) -> str:
    """`Wed 17:51` -> `weekday afternoon`; anything else as it is."""
    match = re.fullmatch(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)\w* (\d{1,2}):(\d{2})", text)
    if match is None:
        return text
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun").index(match[1])
    return part_of_day(datetime(2024, 1, 1 + day, int(match[2]) % 24, int(match[3]) % 60))


def scalars(value: Any) -> dict[str, Scalar]:
    """The scalar leaves of a JSON value by their path; `""` is the value itself."""
    if not isinstance(value, dict):
        return {"": value} if not isinstance(value, list) else {}
    leaves: dict[str, Scalar] = {}
    for key, inner in value.items():
        for path, leaf in scalars(inner).items():
            leaves[f"{key}/{path}" if path else str(key)] = leaf
    return leaves
