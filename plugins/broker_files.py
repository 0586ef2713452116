"""The configuration files of a broker that we start: loopback only, one login at most, large payloads let through."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from pathlib import Path

import msgspec

from runtime.config import BrokerConfig

LOOPBACK = "127.0.0.1"
PAYLOAD_LIMIT = (
    4 * 1024 * 1024
)  # bytes the broker takes: more than the runtime does, so that refusing is the runtime's word


def mosquitto_config(config: BrokerConfig, folder: Path) -> str:
    """Everything that is accepted is written to disk at once, and no queue has an end."""
    lines = [
        f"listener {config.port} {LOOPBACK}",
        "allow_anonymous " + ("false" if config.username else "true"),
        *([f"password_file {folder / 'passwords'}"] if config.username else []),
        "persistence true",
        f"persistence_location {folder}/",
        "autosave_on_changes true",
        "autosave_interval 1",
        "max_queued_messages 0",
        "set_tcp_nodelay true",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if os.geteuid() == 0:
        lines.insert(0, "user root")  # else it changes to a user who may not write into our folder
    return "\n".join(lines) + "\n"


def password_line(config: BrokerConfig) -> str:
    """What `mosquitto_passwd` would write, without the password on a command line."""
    salt, rounds = secrets.token_bytes(12), 1000
    digest = hashlib.pbkdf2_hmac("sha512", config.password.get_secret_value().encode(), salt, rounds, 64)
    return f"{config.username}:$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"


def embedded_config(config: BrokerConfig) -> str:
    """rumqttd's configuration: one MQTT 5 listener on loopback."""
    login = {config.username: config.password.get_secret_value()} if config.username else {}
    quoted = ", ".join(f"{_quote(user)} = {_quote(password)}" for user, password in login.items())
    return f"""id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5-1"
listen = "{LOOPBACK}:{config.port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {PAYLOAD_LIMIT}
max_inflight_count = 100
dynamic_filters = true
{f"auth = {{ {quoted} }}" if quoted else ""}
"""


def _quote(text: str) -> str:
    return msgspec.json.encode(text).decode()


def write(path: Path, text: str) -> Path:
    """Readable for us only: it may hold a password."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path
