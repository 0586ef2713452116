"""What a broker will lose, said before it does: its greeting and, where it can be read, its mosquitto.conf -> one sentence a finding.

A finding says what, why it matters and the line that mends it. Nothing is changed, and no finding stops the agent: a producer that
waits for the agent's own acknowledgement loses nothing whatever the broker does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.config import BrokerConfig
from runtime.payload import SIZE_LIMIT

USUAL = tuple(
    Path(name)
    for name in (
        "/etc/mosquitto/mosquitto.conf",
        "/usr/local/etc/mosquitto/mosquitto.conf",
        "/opt/homebrew/etc/mosquitto/mosquitto.conf",
    )
)
PORT = 1883  # where mosquitto listens if its file does not say
FILES_LIMIT = 100  # files that `include_dir` may bring
AUTOSAVE, QUEUED = 1800, 1000  # mosquitto's own: seconds, messages
FLUSHED = 5  # seconds that mosquitto's SQLite plugin collects for
SAVED_OFTEN = 5  # seconds, or changes with autosave_on_changes, up to which nothing is said
PACKET = SIZE_LIMIT + 4096  # bytes of the largest message that the agent reads, with topic and properties


@dataclass(frozen=True)
class Greeting:
    """What the CONNACK says; None = nothing, which means no limit."""

    session_expiry: int | None = None  # seconds
    maximum_qos: int | None = None
    packet_size: int | None = None  # bytes
    retain: bool = True


def of_greeting(greeting: Greeting, config: BrokerConfig) -> Iterator[str]:
    """What every broker says of itself."""
    expiry = greeting.session_expiry
    if expiry is not None and expiry < config.session_expiry:
        yield (
            f"the broker keeps the agent's session for {expiry} s, not {config.session_expiry} s: what comes while the agent is away "
            "for longer is lost; raise the broker's limit of the session expiry, or lower [broker] session_expiry to know it"
        )
    if greeting.maximum_qos == 0:
        yield (
            "the broker takes QoS 0 only: a message that is under way when a connection breaks is lost; "
            "let it take QoS 1 (mosquitto: max_qos 2)"
        )
    if greeting.packet_size is not None and greeting.packet_size < PACKET:
        yield (
            f"the broker takes no packet over {greeting.packet_size} bytes: larger messages never reach the agent, and nobody is told; "
            f"let it take {PACKET} (mosquitto: max_packet_size {PACKET})"
        )
    if not greeting.retain:
        yield (
            "the broker keeps no retained messages: whoever connects later does not know that the agent is online or a device's state; "
            "mosquitto: retain_available true"
        )


def of_settings(settings: Mapping[str, str], where: str) -> Iterator[str]:
    """What a mosquitto.conf says. `where` names the file."""
    if "persist_sqlite" in settings.get("plugin", ""):  # mosquitto 2.1's other memory
        yield from _sqlite(settings, where)
    else:
        yield from _memory(settings, where)
    queued = _number(settings, "max_queued_messages", QUEUED)
    if queued:
        yield (
            f"the broker queues {queued} messages at most while the agent is away, and drops the others without a word; "
            f"write in {where}: max_queued_messages 0"
        )
    for name in ("message_size_limit", "max_packet_size"):
        if 0 < _number(settings, name, 0) < PACKET:
            yield (
                f"the broker drops messages over {settings[name]} bytes without a word to the agent, which reads up to {SIZE_LIMIT}; "
                f"write in {where}: {name} {PACKET}"
            )


def _memory(settings: Mapping[str, str], where: str) -> Iterator[str]:
    if not _on(settings, "persistence"):
        yield (
            "the broker keeps sessions and waiting messages in memory only: a restart of it loses every message that it has "
            f"acknowledged and not delivered; write in {where}: persistence true"
        )
        return
    interval, on_changes = _number(settings, "autosave_interval", AUTOSAVE), _on(settings, "autosave_on_changes")
    if 0 < interval <= SAVED_OFTEN:
        return
    lost = f"{interval} messages" if on_changes else f"{interval / 60:.3g} min of messages"
    yield (
        f"a broker that is killed may lose {'all messages' if not interval else f'up to {lost}'} that it has acknowledged; "
        f"write in {where}: autosave_on_changes true, and autosave_interval 1"
    )


def _sqlite(settings: Mapping[str, str], where: str) -> Iterator[str]:
    """It writes what came in a while together, and by itself does not wait for the disk."""
    period = _number(settings, "plugin_opt_flush_period", FLUSHED)
    waits = settings.get("plugin_opt_sync", "").lower() in ("full", "extra")
    if waits and period <= SAVED_OFTEN:
        return
    lost = "what its disk had not got" if period <= SAVED_OFTEN else f"up to {period} s of messages"
    yield (
        f"a broker that is killed or loses its power may lose {lost} although it has acknowledged it; "
        f"write in {where}: plugin_opt_sync full, and plugin_opt_flush_period 1"
    )


def embedded() -> Iterator[str]:
    yield (
        "the embedded broker keeps everything in memory: when it dies, messages that it has acknowledged and not delivered are lost; "
        "install mosquitto, or let producers wait for the agent's own acknowledgement"
    )


def settings_file(config: BrokerConfig, data: Path, usual: tuple[Path, ...] = USUAL) -> Path | None:
    """The broker's mosquitto.conf, None if there is none to know of. One that we found ourselves has to name the broker's port."""
    if config.mode == "mosquitto":
        return data.absolute() / "broker" / "mosquitto.conf"
    if config.settings_file:
        return Path(config.settings_file)
    if not _here(config.host):
        return None
    for path in usual:
        try:
            if config.port in ports(path):
                return path
        except OSError:
            continue
    return None


def findings(greeting: Greeting, config: BrokerConfig, data: Path, usual: tuple[Path, ...] = USUAL) -> list[str]:
    """All of them, empty if there is nothing to say."""
    found = list(of_greeting(greeting, config))
    if config.mode == "embedded":
        return [*found, *embedded()]
    path = settings_file(config, data, usual)
    if path is None:
        return found
    try:
        return [*found, *of_settings(read(path), str(path))]
    except OSError as error:
        return [
            *found,
            f"[broker] settings_file: {path} cannot be read, so nobody knows what the broker loses: {error.strerror}",
        ]


def read(path: Path) -> dict[str, str]:
    """Key -> value, the last one counts; of plugins all, under "plugin". Raises OSError."""
    settings: dict[str, str] = {}
    for key, value in _lines(path):
        if key in ("plugin", "global_plugin"):
            settings["plugin"] = f"{settings.get('plugin', '')} {value}"
        else:
            settings[key] = value
    return settings


def ports(path: Path) -> set[int]:
    """Where a mosquitto with this file listens. Raises OSError."""
    words = (value.split()[0] for key, value in _lines(path) if key in ("listener", "port") and value)
    return {int(word) for word in words if word.isascii() and word.isdigit()} or {PORT}


def _lines(path: Path, *, include: bool = True) -> Iterator[tuple[str, str]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, value = (*line.split(None, 1), "", "")[:2]
        if key == "include_dir" and include:
            for part in sorted(Path(value.strip()).glob("*.conf"))[:FILES_LIMIT]:
                yield from _lines(part, include=False)
        elif key and not key.startswith("#"):
            yield key, value.strip()


def _on(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "false").lower() in ("true", "1")


def _number(settings: Mapping[str, str], name: str, default: int) -> int:
    value = settings.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else default


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
