"""Between decision and actuator stands code that no training can move: the model proposes, the guard disposes.

    judge   before a command is written: the tool exists, its actuator is allowed, every value is in its range
    admit   before it is sent, and `permits` before it is sent again: the same, and not expired, not in quiet hours, what
            sensors have to say (`runtime.interlocks`), how often and how far it may move (`runtime.pace`), kill switch

Anything the guard does not know is refused, and so is everything while it fails itself. Not covered: the device's own
limits, and what people do at the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from runtime.catalogue import Catalogue
from runtime.config import GuardConfig, Mode
from runtime.errors import BadAction
from runtime.hours import within
from runtime.interlocks import Interlocks
from runtime.messages import Action, Command
from runtime.pace import Pace


class Guard:
    """Says why not. Durations run on the monotonic clock; expiry and quiet hours on the wall clock."""

    def __init__(
        self, config: GuardConfig, kill_file: Path, *,
        clock: Callable[[], float], monotonic: Callable[[], float], zone: tzinfo = UTC,
    ) -> None:  # fmt: skip
        self._config = config
        self._kill_file = kill_file
        self._clock = clock
        self._zone = zone
        self._pulled = False  # holds although the file could not be written
        self.interlocks = Interlocks(config.interlock, monotonic=monotonic)
        self.pace = Pace(config, monotonic=monotonic)

    @property
    def killed(self) -> bool:
        """The kill switch is a file, so that `touch` works when nothing else does. A file that cannot be looked for is one."""
        try:
            return self._pulled or self._kill_file.exists()
        except OSError:
            return True

    def kill(self, on: bool) -> None:
        """Raises OSError if the file cannot be written or removed; switched on it is all the same."""
        self._pulled = on or self._pulled
        if on:
            return self._kill_file.touch()
        self._kill_file.unlink(missing_ok=True)
        self._pulled = False
        return None

    def judge(self, action: Action, catalogue: Catalogue) -> str | None:
        """The reason to refuse this action, or None."""
        try:
            tool = catalogue.tool(catalogue.check(action).tool)
            return self._outside(tool.actuator, action)
        except BadAction as error:
            return str(error)
        except Exception as error:
            return _failed(error)

    def admit(self, command: Command) -> str | None:
        """The reason not to send this command now, or None; counts it as sent."""
        try:
            reason = self._impossible(command) or self.pace.refuse(command)
            if reason is None:
                self.pace.count(command)
        except Exception as error:
            return _failed(error)
        return reason

    def permits(self, command: Command) -> str | None:
        """The reason not to send an admitted command once more, or None."""
        try:
            return self._impossible(command)
        except Exception as error:
            return _failed(error)

    def _impossible(self, command: Command) -> str | None:
        """What does not hang on what was sent before."""
        if self.killed:
            return f"the kill switch is on (remove it on the page or with `corrigible kill off`; file {self._kill_file.name})"
        now = self._clock()
        if not now < command.expires_at:
            return "expired before it could be sent"
        return (
            self._outside(command.actuator, command.action)
            or self._quiet(command.actuator, datetime.fromtimestamp(now, self._zone))
            or self.interlocks.refuse(command.action)
        )

    def _outside(self, actuator: str, action: Action) -> str | None:
        if not any(fnmatchcase(actuator, pattern) for pattern in self._config.allow):
            return f"{actuator!r} is not in [guard] allow"
        for name, value in action.arguments.items():
            if not _finite(value):
                return f"{actuator}.{name} holds a number that is none"
            limits = self._config.ranges.get(f"{actuator}.{name}")
            if limits is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not limits[0] <= value <= limits[1]:
                return f"{actuator}.{name}={value!r:.80} is outside {limits[0]:g} to {limits[1]:g} ([guard] ranges)"
        return None

    def _quiet(self, actuator: str, local: datetime) -> str | None:
        for pattern, hours in self._config.quiet.items():
            if fnmatchcase(actuator, pattern) and within(hours, local):
                return f"{actuator!r} is told nothing from {hours} ([guard] quiet)"
        return None


class Modes:
    """Which actuators may act. An actuator nobody configured is observed only, unless its plugin is trusted."""

    def __init__(self, configured: dict[str, Mode], trusted: frozenset[str], switched: dict[str, Mode]) -> None:
        self._configured = configured
        self._trusted = trusted
        self.switched = dict(switched)  # by a person at run time; wins

    def of(self, actuator: str) -> Mode:
        if actuator in self.switched:
            return self.switched[actuator]
        for pattern, mode in self._configured.items():
            if fnmatchcase(actuator, pattern):
                return mode
        return "act" if actuator in self._trusted else "observe"


def _failed(error: Exception) -> str:
    return f"the guard failed ({type(error).__name__}: {error}), so nothing is sent"


def _finite(value: Any) -> bool:
    """No NaN and no infinity, however deep."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    return all(_finite(item) for item in value) if isinstance(value, list | tuple) else True
