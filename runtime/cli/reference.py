"""The configuration as text: every key with its default and its meaning, as a file that can be used as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretStr

from runtime.config import Config

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

WIDTH = 44  # column at which the comments begin


def reference() -> str:
    """All keys with their defaults, as TOML, the descriptions as comments."""
    return dump(Config.model_construct(), comments=True)


def dump(config: Config, *, comments: bool = False) -> str:
    """These settings as TOML; passwords are not shown."""
    parts = [
        _section(name, getattr(config, name), comments)
        for name in Config.model_fields
        if name not in ("modes", "plugin")
    ]
    comment = f"  # {Config.model_fields['modes'].description}" if comments else ""
    lines = [f"{json.dumps(actuator)} = {json.dumps(mode)}" for actuator, mode in config.modes.items()]
    parts.append("\n".join([f"[modes]{comment}", *lines]))
    if comments:
        parts.append(f'# {Config.model_fields["plugin"].description}\n# [[plugin]]\n# use = "plugins.mqtt:Mqtt"')
    for entry in config.plugin:
        parts.append("\n".join(["[[plugin]]", *(f"{_key(key)} = {_value(value)}" for key, value in entry.items())]))
    return "\n\n".join(parts) + "\n"


def _section(name: str, section: BaseModel, comments: bool) -> str:
    fields = type(section).model_fields
    return "\n".join([f"[{name}]", *(_line(key, getattr(section, key), fields[key], comments) for key in fields)])


def _line(key: str, value: Any, field: FieldInfo, comments: bool) -> str:
    assignment = f"{key} = {_value(value)}"
    return f"{assignment:<{WIDTH}}  # {field.description}" if comments else assignment


def _key(key: str) -> str:
    return key if key.replace("_", "a").replace("-", "a").isalnum() and key.isascii() else json.dumps(key)


def _value(value: Any) -> str:
    """One TOML value on one line."""
    if isinstance(value, SecretStr):
        return '"***"' if value.get_secret_value() else '""'
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_defaults=True)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value)
