"""Landlock: a process gives up files, ports and signals for good, without being root (Linux 5.13; called by number, as libc
has no names for it)."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Sequence

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
VERSION = 1  # flag: only say which version the kernel has
PATH_BENEATH, NET_PORT = 1, 2

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FILES = (1 << 13) - 1  # version 1: all of reading, writing, making and removing
REFER, TRUNCATE, DEVICES = 1 << 13, 1 << 14, 1 << 15  # versions 2, 3, 5
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | DEVICES  # rights that make sense without a directory
BIND, CONNECT = 1 << 0, 1 << 1  # version 4
SCOPES = (1 << 0) | (1 << 1)  # version 6: abstract sockets and signals of processes outside

libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The kernel's; 0 = none, or switched off."""
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION)))


def missing(found: int) -> list[str]:
    """What a kernel of this version cannot keep a plugin from."""
    if not found:
        return ["Landlock: files are not closed to it (Linux 5.13 or newer has it)"]
    lacks = {4: "TCP ports are not closed to it", 6: "signals to other processes are not"}
    return [f"Landlock {found}: {what}" for needed, what in lacks.items() if found < needed]


def restrict(
    *, read: Sequence[str], look: Sequence[str], write: Sequence[str], network: bool, connect: Sequence[int],
    listen: Sequence[int],
) -> list[str]:  # fmt: skip
    """Close everything but these to this process, for ever; says what this kernel cannot do. no_new_privs must be set before."""
    found = version()
    if not found:
        return missing(found)
    files = FILES | (REFER if found >= 2 else 0) | (TRUNCATE if found >= 3 else 0) | (DEVICES if found >= 5 else 0)
    ports = BIND | CONNECT if found >= 4 and not network else 0
    rules = _ruleset(files, ports, SCOPES if found >= 6 else 0, found)
    try:
        for paths, rights in ((read, READ_FILE | READ_DIR | EXECUTE), (look, READ_DIR), (write, files & ~EXECUTE)):
            for path in paths:
                _allow_path(rules, path, rights & files)
        for numbers, right in ((connect, CONNECT), (listen, BIND)):
            for number in numbers if ports else ():
                _call(ADD_RULE, rules, NET_PORT, struct.pack("=QQ", right, number), 0)
        _call(RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)
    return missing(found)


def _ruleset(files: int, ports: int, scopes: int, found: int) -> int:
    """The kernel takes the length it knows of: versions grew by one field each."""
    fields = (files, ports, scopes)[: 1 + (found >= 4) + (found >= 6)]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    return _call(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)


def _allow_path(rules: int, path: str, rights: int) -> None:
    """A path that is not there needs no rule."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= OF_A_FILE
        if rights:
            _call(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    done = int(libc.syscall(number, *arguments))
    if done < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock call {number}: {os.strerror(error)}")
    return done
