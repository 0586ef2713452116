"""A process confines itself before it imports a plugin: limits, another user, no new privileges, Landlock, seccomp.

What is covered: files, TCP ports, other sockets, other processes, signals, memory, descriptors, size of a written file, and the
daemon's death. What is not: how much of the processor it takes beyond `nice` (a limit in seconds is `permissions.cpu`), which
hosts it talks to once it may use a port, and what a kernel or machine lacks, which `enter` says.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable
from contextlib import suppress

from runtime.isolation import landlock, seccomp
from runtime.isolation.frames import Confinement

SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/null",
)  # to run at all
RESOLVER = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/ssl", "/run/systemd/resolve")
SINK = ("/dev/null",)
THREADS = 64  # of a user of its own, besides the processes it may start
NICE = 5
EXPENDABLE = "900"  # the system short of memory ends it long before the daemon
SET_DEATH_SIGNAL, SET_NO_NEW_PRIVS, SET_KEEPCAPS = 1, 38, 8  # prctl
CAPABILITIES_V3, SEARCH = 0x20080522, 1 << 2  # CAP_DAC_READ_SEARCH
libc = ctypes.CDLL(None, use_errno=True)


def enter(wanted: Confinement) -> list[str]:
    """From here on this process can do no more than it may; says what this machine could not take from it."""
    _expendable()
    _limits(wanted)
    lacking = _become(wanted) + _kept_from_privileges()
    _end_with(wanted.parent)
    sockets = "any" if wanted.network else "tcp" if wanted.connect or wanted.listen else "none"
    read = [*SYSTEM, *(RESOLVER if sockets != "none" else ()), *wanted.read]
    lacking += _tried(
        "Landlock",
        lambda: landlock.restrict(
            read=read, look=wanted.look, write=[*SINK, *wanted.write], network=wanted.network, connect=wanted.connect,
            listen=wanted.listen,
        ),
    )  # fmt: skip
    return lacking + _tried("seccomp", lambda: seccomp.restrict(processes=wanted.processes > 0, sockets=sockets))


def _tried(what: str, do: Callable[[], list[str]]) -> list[str]:
    try:
        return do()
    except OSError as error:
        return [f"{what}: {error}"]


def _expendable() -> None:
    with suppress(OSError):
        os.nice(NICE)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
        score.write(EXPENDABLE)


def _limits(wanted: Confinement) -> None:
    """Hard limits: what is given up does not come back. A user of its own has its processes counted, too."""
    limits = {
        resource.RLIMIT_AS: wanted.memory,
        resource.RLIMIT_NOFILE: wanted.files,
        resource.RLIMIT_FSIZE: wanted.disk,
        resource.RLIMIT_CORE: 0,
    }
    if wanted.cpu:
        limits[resource.RLIMIT_CPU] = wanted.cpu
    if wanted.uid is not None:
        limits[resource.RLIMIT_NPROC] = THREADS + wanted.processes
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))


def _become(wanted: Confinement) -> list[str]:
    """The user it runs as. Where the interpreter lies in a place closed to that user, it keeps the one capability to look past
    owners, and Landlock alone says what it may read: never without Landlock."""
    if wanted.uid is None:
        return ["own user: the daemon is not root, so the plugin runs as the daemon's user"]
    if wanted.search and not landlock.version():
        return ["own user: its interpreter is closed to other users, so it runs as the daemon's user"]
    libc.prctl(SET_KEEPCAPS, int(wanted.search), 0, 0, 0)
    os.setgroups([])
    group = wanted.uid if wanted.gid is None else wanted.gid
    os.setresgid(group, group, group)
    os.setresuid(wanted.uid, wanted.uid, wanted.uid)
    _keep_capabilities(SEARCH if wanted.search else 0)
    return []


def _keep_capabilities(low: int) -> None:
    header = struct.pack("=Ii", CAPABILITIES_V3, 0)
    data = struct.pack("=6I", low, low, 0, 0, 0, 0)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def _kept_from_privileges() -> list[str]:
    if libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return ["no_new_privs: this kernel has none"]
    return []


def _end_with(parent: int) -> None:
    """No orphan: the kernel ends it when the daemon ends, also by kill -9 (asked for after the change of user, which forgets it)."""
    libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
