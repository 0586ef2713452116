"""config entries -> plugin objects: by dotted path or installed entry point, each key checked against the class's fields."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar, cast

import msgspec

from runtime.config import nearest
from runtime.errors import BadConfig
from runtime.roles import ROLES, Context, Plugin

ENTRY_POINT_GROUP = "corrigible.plugins"
OURS = "plugins."  # modules of this distribution; all others are somebody else's
P = TypeVar("P")


def load(
    entries: Sequence[dict[str, Any]], context: Context, apart: Mapping[int, Plugin] | None = None
) -> list[Plugin]:
    """One plugin object for each `[[plugin]]` table, in order; by its number one that is there already, in a process of its own.
    Raises BadConfig naming the table and the key."""
    made = apart or {}
    plugins = [
        made.get(number) or _build(number, dict(entry), context) for number, entry in enumerate(entries, start=1)
    ]
    for number, plugin in enumerate(plugins):
        if any(plugin.name == other.name for other in plugins[:number]):
            raise BadConfig(f"two plugins are called {plugin.name!r}; give one of them another `name`")
    return plugins


def of_role(plugins: Sequence[Plugin], role: Callable[..., P]) -> list[P]:
    """Those of one role. (`Callable`, because mypy takes no abstract class for a `type[P]`.)"""
    assert isinstance(role, type)
    return [cast(P, plugin) for plugin in plugins if isinstance(plugin, role)]


def roles_of(plugin: Plugin) -> list[str]:
    return [role.__name__ for role in ROLES if isinstance(plugin, role)]


def use_of(plugin: Plugin) -> str:
    """`module:Class` of what is really meant, also where this object only stands for it."""
    return str(getattr(plugin, "use", "")) or f"{type(plugin).__module__}:{type(plugin).__name__}"


def isolated(entry: Mapping[str, Any]) -> bool:
    """It gets a process of its own: by default every plugin that is not ours. Raises BadConfig if it says neither yes nor no."""
    use, wanted = entry.get("use"), entry.get("isolate")
    if not isinstance(wanted, bool | None):
        raise BadConfig(f"{use}: isolate is true or false, not {wanted!r}")
    if not isinstance(use, str):
        return False  # `load` says what is wrong with it
    return not target(use).startswith(OURS) if wanted is None else wanted


def _build(number: int, entry: dict[str, Any], context: Context) -> Plugin:
    use, name = entry.pop("use", None), entry.pop("name", None)
    entry.pop("isolate", None), entry.pop("permissions", None)  # of those who live apart
    where = f"[[plugin]] number {number}"
    if not isinstance(use, str):
        raise BadConfig(f"{where} has no key 'use'; write, for example, use = \"plugins.mqtt:Mqtt\"")
    cls = resolve(use, where)
    fields = [field.name for field in dataclasses.fields(cast(Any, cls)) if field.init]
    for key in entry:
        if key not in fields:
            raise BadConfig(f"{where} ({use}): unknown key {key!r}{nearest(key, [*fields, 'use', 'name'])}")
    try:
        plugin = msgspec.convert(entry, type=cls)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{where} ({use}): {_readable(error)}") from None
    plugin.name = str(name or cls.__name__)
    plugin.context = context
    return plugin


def resolve(use: str, where: str = "plugin") -> type[Plugin]:
    """The class behind `module:Class` or an entry point's name. Raises BadConfig saying what was found instead."""
    path = target(use, where)
    module_name, _, class_name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise BadConfig(f"{where}: cannot import {module_name!r}: {error}") from None
    cls = getattr(module, class_name, None)
    if not (isinstance(cls, type) and issubclass(cls, Plugin) and dataclasses.is_dataclass(cls)):
        classes = [n for n, c in vars(module).items() if isinstance(c, type) and issubclass(c, ROLES)]
        raise BadConfig(f"{where}: {path!r} is not a plugin dataclass{nearest(class_name, classes)}")
    return cls


def target(use: str, where: str = "plugin") -> str:
    """`module:Class` of a dotted path or an entry point's name, without importing anything."""
    if ":" in use:
        return use
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    if use not in found:
        raise BadConfig(f"{where}: no installed plugin is called {use!r}{nearest(use, list(found))}")
    return found[use]


def _readable(error: msgspec.ValidationError) -> str:
    """msgspec says `Expected int, got str - at `$.rate``; a person wants the key first."""
    text, found, path = str(error).partition(" - at `$.")
    if found:
        return f"{path.rstrip('`')}: {text}"
    missing = re.search(r"missing required field `(\w+)`", text)
    return f"the key {missing[1]!r} is missing" if missing else text
