"""Whom an isolated plugin runs as where the daemon is root: a user number of its own, or one that was named."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import BadConfig

FIRST, COUNT = 61184, 4096  # the numbers systemd gives to services without a user of their own


def of(plugin: str, named: str) -> tuple[int | None, int | None]:
    """Its user and group; (None, None) where the daemon is not root and cannot choose."""
    if os.geteuid() != 0:
        return None, None
    if not named:
        number = FIRST + int.from_bytes(hashlib.sha256(plugin.encode()).digest()[:4], "big") % COUNT
        return number, number
    try:
        found = pwd.getpwnam(named)
    except (KeyError, ValueError):
        raise BadConfig(f"plugin {plugin!r}: permissions.user: this machine has no user {named!r}") from None
    if found.pw_uid == 0:
        raise BadConfig(f"plugin {plugin!r}: permissions.user: {named!r} is root; leave it out for a number of its own")
    return found.pw_uid, grp.getgrgid(found.pw_gid).gr_gid


def give(home: Path, uid: int, gid: int) -> None:
    """Its own directory. Not what is in it: that is the plugin's already, or a link it made to what is not."""
    home.chmod(0o700)
    os.chown(home, uid, gid, follow_symlinks=False)


def reaches(uid: int, gid: int | None, paths: Sequence[str]) -> bool:
    """It can get at all of these by their owners' leave: every directory above is open to it, and they are."""
    return all(_open(Path(part), uid, gid) for path in paths for part in (path, *map(str, Path(path).parents)))


def _open(path: Path, uid: int, gid: int | None) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    needed = 0o5 if stat.S_ISDIR(found.st_mode) else 0o4
    if found.st_uid == uid:
        return (found.st_mode >> 6) & needed == needed
    if found.st_gid == gid:
        return (found.st_mode >> 3) & needed == needed
    return found.st_mode & needed == needed
