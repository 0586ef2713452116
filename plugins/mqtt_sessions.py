"""What the agent knows of its sessions at the broker: that one is gone which it had, and that somebody else has its name.

A session is where a broker keeps what came while we were away. When it is lost, a producer that waits for the agent's own
acknowledgement sends again by itself; of all others a person has to know.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiomqtt
import msgspec

from runtime.config import BrokerConfig

FILE = "mqtt-sessions.json"
TAKEN_OVER = 0x8E  # the broker's reason code: another client came with our id
CLOSED = 0x80  # paho's reason code for a connection that was closed without one
TIMES, SILENT, WITHIN = 3, 6, 60.0  # so often, or without a word so often, in so many seconds is no accident
QUIET = 600.0  # seconds until it is told again
CALM = 60.0  # seconds between two attempts then


class Sessions:
    """`notice` tells a person. The file outlives the daemon; the embedded broker's sessions do not, and are remembered here only."""

    def __init__(self, data: Path, broker: BrokerConfig, notice: Callable[[str, str], object]) -> None:
        self._path, self._broker, self._notice = data / FILE, broker, notice
        self._known = self._read()

    def greeted(self, identifier: str, present: bool) -> None:
        """A connection stands. `present`: the broker has the session of before."""
        if not self._broker.session_expiry:
            return
        where = f"{self._broker.host}:{self._broker.port}"
        name = f"{identifier}@{where}"
        if not present and name in self._known:
            self._notice(
                "session_lost",
                f"the broker at {where} has forgotten the session {identifier}: it restarted without its memory, or the agent was "
                f"away for longer than session_expiry ({self._broker.session_expiry} s); messages that came meanwhile are gone, "
                "except those of producers that wait for the agent's own acknowledgement; to mend it, let the broker persist "
                "its sessions (mosquitto: persistence true, autosave_on_changes true, autosave_interval 1)",
            )
        if name not in self._known:
            self._known.add(name)
            self._write()

    def _read(self) -> set[str]:
        if self._broker.mode == "embedded":
            return set()
        try:
            return set(msgspec.json.decode(self._path.read_bytes(), type=list[str]))
        except (OSError, msgspec.MsgspecError):
            return set()

    def _write(self) -> None:
        if self._broker.mode == "embedded":
            return
        self._known |= self._read()  # what other MQTT plugins have written meanwhile: the file is theirs, too
        beside = self._path.with_suffix(".new")
        with suppress(OSError):  # then a loss over the next restart goes unseen, and nothing else
            beside.write_bytes(msgspec.json.encode(sorted(self._known)))
            beside.replace(self._path)


class Rival:
    """Another client with our id: each throws the other out, for ever, unless one of them gives way.

    Newer brokers say that it is so. mosquitto 2.0 and the embedded broker just close the connection; then it is the likely reason
    if that happens again and again to connections that were made without trouble.
    """

    def __init__(self, notice: Callable[[str, str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._notice, self._clock = notice, clock
        self._said: list[float] = []  # when the broker said so
        self._closed: list[float] = []  # when it closed without a word, each time after a good connection
        self._told: float | None = None

    def met(self, identifier: str, error: BaseException) -> bool:
        """Told of every loss and failure. Whether it is certain, and too often: do not come back at once then."""
        now, code = self._clock(), _code(error) or _code(error.__cause__)
        self._said = [at for at in self._said if now - at < WITHIN] + [now] * (code == TAKEN_OVER)
        self._closed = [*(at for at in self._closed if now - at < WITHIN), now] if code == CLOSED else []
        certain = len(self._said) >= TIMES
        if (certain or len(self._closed) >= SILENT) and (self._told is None or now - self._told >= QUIET):
            self._told = now
            how = (
                "throws this agent out"
                if certain
                else "probably throws this agent out (or the broker closes it by itself)"
            )
            self._notice(
                "session_taken_over",
                f"another client connects to the broker as {identifier} and {how}, again and again: messages may go to either; "
                "stop the other agent, or give one of them another [agent] name",
            )
        return certain and code == TAKEN_OVER


def _code(error: BaseException | None) -> object:
    """The broker's reason code, if it gave one."""
    return getattr(error.rc, "value", error.rc) if isinstance(error, aiomqtt.MqttCodeError) else None
