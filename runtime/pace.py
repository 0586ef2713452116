"""How often and how far actuators may be moved, by what was sent before: rate, budget, dwell and slew.

All on the monotonic clock: no step of the wall clock opens a gate. Only across a restart the wall clock is all there is to
tell how long ago a command was sent.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from runtime.config import GuardConfig
from runtime.messages import Action, Command

MINUTE = 60.0  # seconds


class Pace:
    """Remembers what was sent, as far as the limits look back."""

    def __init__(self, config: GuardConfig, *, monotonic: Callable[[], float]) -> None:
        self._config = config
        self._monotonic = monotonic
        self._sent: defaultdict[str, deque[float]] = defaultdict(deque)
        self._all: deque[float] = deque()
        self._kept: dict[str, tuple[Action, float]] = {}  # actuator -> what it was told last, and since when
        self._moved: dict[str, tuple[float, float]] = {}  # actuator.argument -> the value sent last, and when

    def restore(self, commands: Iterable[Command], clock: float) -> None:
        """What an earlier run sent, oldest first, at the wall clock's `clock`. One from the future was sent just now."""
        for command in commands:
            self.count(command, ago=max(0.0, clock - command.at))

    def refuse(self, command: Command) -> str | None:
        """The first limit that sending it now would break."""
        return self._too_often(command.actuator) or self._too_soon(command) or self._too_far(command)

    def count(self, command: Command, *, ago: float = 0.0) -> None:
        """It is being sent, or was, so many seconds ago."""
        now, actuator = self._monotonic() - ago, command.actuator
        self._sent[actuator].append(now)
        self._all.append(now)
        if actuator not in self._kept or self._kept[actuator][0] != command.action:
            self._kept[actuator] = (command.action, now)
        for name, value in command.action.arguments.items():
            if f"{actuator}.{name}" in self._config.slew and _is_number(value):
                self._moved[f"{actuator}.{name}"] = (value, now)

    def _too_often(self, actuator: str) -> str | None:
        now = self._monotonic()
        for times, limit, what in (
            (self._sent[actuator], self._config.rate, f"for {actuator!r} ([guard] rate)"),
            (self._all, self._config.budget, "to all actuators ([guard] budget)"),
        ):
            while times and now - times[0] >= MINUTE:
                times.popleft()
            if len(times) >= limit:
                return f"more than {limit} commands a minute {what}"
        return None

    def _too_soon(self, command: Command) -> str | None:
        told = self._kept.get(command.actuator)
        if told is None or told[0] == command.action:
            return None
        kept = self._monotonic() - told[1]
        for pattern, seconds in self._config.dwell.items():
            if fnmatchcase(command.actuator, pattern) and kept < seconds:
                return f"{command.actuator!r} was told something else {kept:.0f} s ago; it keeps that for {seconds:g} s ([guard] dwell)"
        return None

    def _too_far(self, command: Command) -> str | None:
        for name, value in command.action.arguments.items():
            key = f"{command.actuator}.{name}"
            if key not in self._config.slew:
                continue
            if not _is_number(value):
                return f"{key}={value!r:.80} is no number, and [guard] slew limits how far it moves"
            before = self._moved.get(key)
            if before is None:
                continue
            most = self._config.slew[key] * (self._monotonic() - before[1]) / MINUTE
            if abs(value - before[0]) > most:
                return f"{key} may move by {most:.3g} from {before[0]:g} by now, not to {value:g} ([guard] slew)"
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
