"""`[[plugin]]` tables -> isolated plugins: which of them live apart, and what each is told and allowed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import structlog

from runtime import plugins
from runtime.config import BrokerConfig
from runtime.errors import BadConfig, CorrigibleError
from runtime.isolation import permissions as manifest
from runtime.isolation import user
from runtime.isolation.frames import Confinement, Setup
from runtime.isolation.permissions import NAME, Permissions
from runtime.isolation.remote import Remote, of_roles
from runtime.roles import Context, Plugin

MEBIBYTE = 1 << 20
HOME = "plugins"  # under the data directory: each has one of its own there

log = structlog.get_logger("isolation")


async def introduced(entries: Sequence[dict[str, Any]], context: Context) -> dict[int, Remote]:
    """The isolated ones by the number of their table, each heard about what it is; one that cannot be had says why in its state
    and harms nobody. Raises BadConfig for a table that cannot be used."""
    apart = remotes(entries, context)
    try:
        await asyncio.gather(*(_introduce(remote) for remote in apart.values()))
        _no_two_own_an_actuator(apart.values())
    except BaseException:
        await asyncio.gather(*(remote.stop() for remote in apart.values()))
        raise
    return apart


def remotes(entries: Sequence[dict[str, Any]], context: Context) -> dict[int, Remote]:
    """The isolated ones by the number of their table, of which nothing is known yet. Raises BadConfig."""
    return {n: _remote(n, entry, context) for n, entry in enumerate(entries, start=1) if plugins.isolated(entry)}


async def checked(entries: Sequence[dict[str, Any]], context: Context) -> list[Plugin]:
    """All plugins as the daemon would load them, and ended again: nothing that is not ours is imported here. Raises BadConfig for
    one that cannot be used."""
    apart = await introduced(entries, context)
    try:
        for remote in apart.values():
            if remote.failure:
                raise BadConfig(f"plugin {remote.name!r} cannot be used: {remote.failure}")
        return plugins.load(entries, context, apart)
    finally:
        for remote in apart.values():
            await remote.stop()


def _remote(number: int, entry: dict[str, Any], context: Context) -> Remote:
    where = f"[[plugin]] number {number}"
    target = plugins.target(str(entry.get("use", "")), where)
    name = str(entry.get("name") or target.rpartition(":")[2])
    if not NAME.match(name):
        raise BadConfig(
            f"{where}: {name!r} cannot be the name of an isolated plugin; use letters, digits, '.', '_' and '-'"
        )
    may = manifest.read(entry.get("permissions", {}), where)
    home = (context.data / HOME / name).resolve()
    home.mkdir(parents=True, exist_ok=True)
    keys = {key: value for key, value in entry.items() if key not in ("isolate", "permissions", "name")}
    setup = Setup(
        name=name, entry=keys, agent=context.agent, data=str(home), broker=_broker(context.broker, may),
        zone=_zone(context), confinement=_confinement(may, name, target, home, context.broker),
    )  # fmt: skip
    return of_roles(may.roles)(name, target, setup, may)


async def _introduce(remote: Remote) -> None:
    """What fails here is no reason to stop the daemon."""
    try:
        found = await remote.introduce()
    except CorrigibleError as error:
        remote.failure = str(error)
        log.error("a plugin cannot be used", plugin=remote.name, reason=remote.failure)
        return
    remote.adopt(found)
    if found.lacking:
        log.warning("this machine cannot confine a plugin wholly", plugin=remote.name, lacking="; ".join(found.lacking))


def _no_two_own_an_actuator(made: Iterable[Remote]) -> None:
    owners: dict[str, str] = {}
    for remote in made:
        named = {tool.actuator for row in remote.tools().values() for tool in row if tool.actuator}
        taken = sorted(owners[actuator] for actuator in named if actuator in owners)
        if taken:
            raise BadConfig(
                f"plugins {taken[0]!r} and {remote.name!r} offer the same actuator; allow it to one of them"
            )
        owners.update(dict.fromkeys(named, remote.name))


def _broker(broker: BrokerConfig, may: Permissions) -> dict[str, Any]:
    if not may.broker:
        return {"mode": "none"}
    return {**broker.model_dump(mode="json"), "password": broker.password.get_secret_value()}


def _zone(context: Context) -> str:
    key = getattr(context.zone, "key", None)
    offset = context.zone.utcoffset(None)
    return str(key) if key else str(int(offset.total_seconds()) if offset else 0)


def _confinement(may: Permissions, name: str, target: str, home: Path, broker: BrokerConfig) -> Confinement:
    packages, look = _code(target.partition(":")[0].partition(".")[0])
    uid, gid = user.of(name, may.user)
    if uid is not None:
        user.give(home, uid, -1 if gid is None else gid)
    return Confinement(
        parent=os.getpid(), uid=uid, gid=gid, search=uid is not None and not user.reaches(uid, gid, [*packages, str(home)]),
        read=[*packages, *_absolute(may.read)], look=look, write=[str(home), *_absolute(may.write)],
        network=may.network, connect=[*may.connect, *([broker.port] if may.broker else [])], listen=may.listen,
        memory=may.memory * MEBIBYTE, files=may.files, processes=may.processes, cpu=may.cpu, disk=may.disk * MEBIBYTE,
    )  # fmt: skip


def _code(top: str) -> tuple[list[str], list[str]]:
    """What has to be read to run it: the interpreter, and of directories of code that hold who knows what beside it (the one
    the daemon was started in) only our packages and the plugin's. The second list: directories whose names may be seen."""
    whole = [str(Path(prefix).resolve()) for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix}]
    found, look = list(whole), []
    for entry in {str(Path(entry or ".").resolve()) for entry in sys.path}:
        if any(entry == prefix or entry.startswith(prefix + os.sep) for prefix in whole) or not Path(entry).exists():
            continue
        look.append(entry)
        for one in ("runtime", "plugins", top):
            found.extend(str(path) for path in (Path(entry, one), Path(entry, f"{one}.py")) if path.exists())
    return found, look


def _absolute(paths: Sequence[str]) -> list[str]:
    return [str(Path(path).expanduser().resolve()) for path in paths]
