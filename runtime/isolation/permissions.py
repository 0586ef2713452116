"""What an isolated plugin may: the `permissions` of its `[[plugin]]` table, deny by default for all that reaches outside.

The daemon's side of the pipe enforces topics, actuators, scopes and words; the kernel enforces paths, network, memory,
descriptors and processes (`sandbox`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import msgspec

from runtime.config import nearest
from runtime.errors import BadConfig
from runtime.messages import Feedback, Observation
from runtime.roles import ROLES, Situation

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")  # it becomes a directory
KINDS = ("sensor", "speech", "timer")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
MOST = 1 << 20  # MiB, descriptors, processes: more than any machine has, and less than any limit of the kernel can hold


class Permissions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Patterns are as everywhere in `config.toml`: `*` stands for anything."""

    roles: list[str] = []  # what it must be; empty = whatever it says it is
    observe: list[str] = msgspec.field(default_factory=lambda: ["*"])  # topics whose observations it is shown
    emit: list[str] = []  # topics its own observations may name
    actuators: list[str] = []  # what it may offer and be told to command
    scopes: list[str] = msgspec.field(
        default_factory=lambda: ["*"]
    )  # where it may offer tools, and what it may say is worth deciding
    feedback: bool = False  # it may say what was right or wrong
    speech: bool = False  # it may say that a person spoke
    broker: bool = False  # it is told how to log in at the MQTT broker, and may connect there
    read: list[str] = []  # files and directories besides its own and the interpreter's
    write: list[str] = []
    network: bool = False  # anything at all
    connect: list[Port] = []  # TCP ports it may connect to
    listen: list[Port] = []  # TCP ports it may listen on
    environment: list[str] = []  # names of variables it is shown
    memory: Annotated[int, msgspec.Meta(ge=64, le=MOST)] = 1024  # MiB of address space
    files: Annotated[int, msgspec.Meta(ge=16, le=MOST)] = 128  # open descriptors
    processes: Annotated[int, msgspec.Meta(ge=0, le=MOST)] = 0  # it may start
    cpu: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)] = 0  # seconds of computing a life; 0 = any
    disk: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 64  # MiB of one file it writes
    rate: Positive = 50.0  # messages a second it may emit; faster ones wait
    patience: Positive = 5.0  # seconds an answer may take, and a sign of life be away
    act: Positive = 30.0  # seconds a command may take
    user: str = ""  # whom it runs as where the daemon is root; empty = a number of its own

    def wrong(self, message: Observation | Feedback | Situation) -> str | None:
        """The reason why it may not say this, or None."""
        match message:
            case Observation():
                if not _fits(message.topic, self.emit):
                    return f"an observation on {message.topic[:80]!r} is not in its permissions.emit"
            case Feedback():
                if not self.feedback:
                    return "it has no permissions.feedback"
            case Situation():
                if message.kind not in KINDS:
                    return f"{message.kind[:20]!r} is no kind of situation"
                if message.kind == "speech" and not self.speech:
                    return "it says that a person spoke, without permissions.speech"
                if not _fits(message.scope, self.scopes):
                    return f"the scope {message.scope[:80]!r} is not in its permissions.scopes"
        return None

    def misfit(self, roles: Iterable[str], tools: dict[str, Any]) -> str | None:
        """The reason why it may not be what it says it is, or None."""
        claimed, known = set(roles), {role.__name__ for role in ROLES}
        if not claimed or not claimed <= known:
            return f"it says it is {sorted(claimed)}, which is none of {sorted(known)}"
        if self.roles and claimed != set(self.roles):
            return f"it says it is {sorted(claimed)}, its permissions.roles say {sorted(self.roles)}"
        for scope, row in tools.items():
            if not _fits(scope, self.scopes):
                return f"it offers tools in the scope {scope[:80]!r}, which is not in its permissions.scopes"
            for tool in row:
                if tool.actuator and not _fits(tool.actuator, self.actuators):
                    return f"it offers the actuator {tool.actuator[:80]!r}, which is not in its permissions.actuators"
        return None

    def sees(self, topic: str) -> bool:
        return _fits(topic, self.observe)

    def shows(self, reading: str) -> bool:
        """Readings are called as their topics, without the first level."""
        return any(
            fnmatchcase(reading, name) for pattern in self.observe for name in (pattern, pattern.partition("/")[2])
        )

    @property
    def ports(self) -> bool:
        """It may use TCP, on some ports at least."""
        return self.network or self.broker or bool(self.connect or self.listen)


def read(given: object, where: str) -> Permissions:
    """The table `permissions` of a plugin entry. Raises BadConfig naming the key."""
    if not isinstance(given, dict):
        raise BadConfig(f'{where}: permissions is a table, such as permissions = {{ emit = ["hall/*"] }}')
    for key in given:
        if key not in Permissions.__struct_fields__:
            raise BadConfig(f"{where}: unknown permission {key!r}{nearest(key, list(Permissions.__struct_fields__))}")
    try:
        found = msgspec.convert(given, type=Permissions)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{where}: permissions: {error}") from None
    for role in found.roles:
        if role not in {one.__name__ for one in ROLES}:
            raise BadConfig(
                f"{where}: permissions.roles: there is no role {role!r}{nearest(role, [r.__name__ for r in ROLES])}"
            )
    for path in (*found.read, *found.write):
        try:
            Path(path).expanduser().resolve()
        except (ValueError, RuntimeError, OSError) as error:
            raise BadConfig(f"{where}: permissions: {path[:80]!r} is no path: {error}") from None
    return found


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
