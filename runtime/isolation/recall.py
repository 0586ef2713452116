"""What isolated plugins said they are when they last lived, kept in the journal: a command with the daemon down knows their tools
without starting anything that is not ours."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from runtime.errors import Unwritable
from runtime.isolation import loading
from runtime.isolation.frames import Described
from runtime.isolation.remote import Remote, sound
from runtime.journal import Journal
from runtime.roles import Context

KEY = "isolated"  # in the journal's metadata: name and class -> Described


async def keep(journal: Journal, apart: Collection[Remote]) -> None:
    """Remember the ones that live now, and not what could not be had this time. Whoever is not among them, as in safe mode, stays
    remembered. What JSON cannot carry is not kept: such tools are unknown while the daemon is down."""
    known, names = await _known(journal), {remote.name for remote in apart}
    others = {key: described for key, described in known.items() if key.split(" ")[0] not in names}
    said = others | {_key(remote): remote.said for remote in apart if remote.said is not None and sound(remote.said)}
    if said != known:
        with suppress(Unwritable):  # a full disk; the next start will
            await journal.set_metadata(KEY, msgspec.to_builtins(said))


async def recalled(entries: Sequence[dict[str, Any]], context: Context, journal: Journal) -> dict[int, Remote]:
    """The isolated ones by the number of their table, as they were; one that never lived offers nothing. Raises BadConfig for a
    table that cannot be used."""
    known, apart = await _known(journal), loading.remotes(entries, context)
    for remote in apart.values():
        remote.recall(known.get(_key(remote)))
    return apart


def _key(remote: Remote) -> str:
    return f"{remote.name} {remote.use}"


async def _known(journal: Journal) -> dict[str, Described]:
    try:
        return msgspec.convert(await journal.metadata(KEY) or {}, dict[str, Described])
    except msgspec.ValidationError:  # another version wrote it: the next start writes it anew
        return {}
