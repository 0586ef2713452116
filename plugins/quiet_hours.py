"""Rule: at the hours a person names, the agent leaves the named actuators alone, whatever it has learnt."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, time
from fnmatch import fnmatchcase

from runtime.errors import BadConfig
from runtime.messages import NOTHING, Action, Percept
from runtime.roles import Rule


@dataclass
class QuietHours(Rule):
    """[[plugin]]
    use = "plugins.quiet_hours:QuietHours"
    begin = "22:00"               # local time on the wall; a span over midnight is fine
    end = "06:30"
    actuators = ["*_blind"]       # patterns; the default is all of them
    allow = ["*_lamp off"]        # actions, as text, that are quiet enough at any time
    spoken = true                 # a person who asks for it gets it all the same
    """

    begin: str = "22:00"
    end: str = "07:00"
    actuators: list[str] = field(default_factory=lambda: ["*"])
    allow: list[str] = field(default_factory=list)
    spoken: bool = True

    def __post_init__(self) -> None:
        self._begin, self._end = _time("begin", self.begin), _time("end", self.end)

    def judge(self, percept: Percept, action: Action, now: datetime) -> str | None:
        if action == NOTHING or not self._quiet(now.time()):
            return None
        if self.spoken and percept.kind == "speech":
            return None
        if not any(fnmatchcase(action.tool, pattern) for pattern in self.actuators):
            return None
        text = " ".join([action.tool, *map(str, action.arguments.values())])
        if any(fnmatchcase(text, pattern) for pattern in self.allow):
            return None
        return f"quiet hours from {self.begin} to {self.end}"

    def _quiet(self, now: time) -> bool:
        if self._begin <= self._end:
            return self._begin <= now < self._end
        return now >= self._begin or now < self._end


def _time(key: str, text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise BadConfig(f'plugins.quiet_hours: {key} = "{text}" is not a time of day; write it like "22:00"') from None
