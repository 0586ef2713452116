"""Between decision and actuator stands code that no training can move: the model proposes, the guard disposes.

What is covered: an allow-list of actuators, ranges of arguments, a rate per actuator, the age of a command, a kill
switch. Anything the guard does not know is refused. What is not covered yet: slew and dwell, interlocks on other
sensors, a dead-man lease at the device.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

from runtime.catalogue import Catalogue, Tool
from runtime.config import GuardConfig, Mode
from runtime.errors import BadAction
from runtime.messages import Action, Command

MINUTE = 60.0  # seconds


class Guard:
    """Says why not. Rates run on the monotonic clock, expiry on the wall clock that stamped the command."""

    def __init__(
        self, config: GuardConfig, kill_file: Path, *, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._config = config
        self._kill_file = kill_file
        self._clock = clock
        self._monotonic = monotonic
        self._sent: defaultdict[str, deque[float]] = defaultdict(deque)

    @property
    def killed(self) -> bool:
        """The kill switch is a file, so that `touch` works when nothing else does."""
        return self._kill_file.exists()

    def kill(self, on: bool) -> None:
        if on:
            self._kill_file.touch()
        else:
            self._kill_file.unlink(missing_ok=True)

    def judge(self, action: Action, catalogue: Catalogue) -> str | None:
        """The reason to refuse this action, or None."""
        try:
            tool = catalogue.tool(catalogue.check(action).tool)
        except BadAction as error:
            return str(error)
        if not any(fnmatchcase(tool.actuator, pattern) for pattern in self._config.allow):
            return f"{tool.actuator!r} is not in [guard] allow"
        return self._outside(tool, action)

    def admit(self, command: Command) -> str | None:
        """The reason not to send this command now, or None; counts it against the rate."""
        if self.killed:
            return f"the kill switch is on (remove it on the page or with `corrigible kill off`; file {self._kill_file.name})"
        if self._clock() >= command.expires_at:
            return "expired before it could be sent"
        sent = self._sent[command.actuator]
        now = self._monotonic()
        while sent and now - sent[0] >= MINUTE:
            sent.popleft()
        if len(sent) >= self._config.rate:
            return f"more than {self._config.rate} commands a minute for {command.actuator!r} ([guard] rate)"
        sent.append(now)
        return None

    def _outside(self, tool: Tool, action: Action) -> str | None:
        for name, value in action.arguments.items():
            limits = self._config.ranges.get(f"{tool.actuator}.{name}")
            if limits is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not limits[0] <= value <= limits[1]:
                return f"{tool.actuator}.{name}={value!r} is outside {limits[0]:g} to {limits[1]:g} ([guard] ranges)"
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
