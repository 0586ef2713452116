"""seccomp: a process gives up system calls for good. Here: starting other processes, sockets, and what nobody needs in a plugin.

A filter is a small program in the kernel that sees the number and the plain arguments of every call (x86-64 and arm64; elsewhere
the others of the sandbox have to do).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

SET_SECCOMP, FILTER = 22, 2  # prctl
LOAD, EQUAL, AT_LEAST, SOME, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06  # instructions
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # a refusal carries its errno
NUMBER, ARCHITECTURE, FIRST, SECOND, THIRD = 0, 4, 16, 24, 32  # what is where (low halves of the arguments)
X32 = 0x40000000  # the same calls again under other numbers
THREAD = 0x00010000  # of clone's flags
INTERNET = (2, 10)  # families
STREAM, KIND = 1, 0xF  # of a socket's kind, the bits that are not flags
TCP = 6  # a protocol; 0 = the usual one

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {  # x86-64, arm64; -1 = it has none
    "socket": (41, 198), "clone": (56, 220), "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221),
    "execveat": (322, 281), "clone3": (435, 435), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "io_uring_setup": (425, 425), "bpf": (321, 280), "userfaultfd": (323, 282),
    "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217), "mount": (165, 40), "unshare": (272, 97),
    "setns": (308, 268), "open_by_handle_at": (304, 265), "kexec_load": (246, 104), "init_module": (175, 105),
    "reboot": (169, 142),
}  # fmt: skip
NEVER = (
    "ptrace", "process_vm_readv", "process_vm_writev", "bpf", "userfaultfd", "perf_event_open", "keyctl", "add_key", "mount",
    "unshare", "setns", "open_by_handle_at", "kexec_load", "init_module", "reboot",
)  # fmt: skip
ABSENT = ("io_uring_setup", "clone3")  # answered as by a kernel without them: callers have another way, which is judged
PROCESSES = ("fork", "vfork", "execve", "execveat")

libc = ctypes.CDLL(None, use_errno=True)
Code = list[tuple[int, int, int, int]]


def restrict(*, processes: bool, sockets: str) -> list[str]:
    """`sockets`: none, tcp or any. Says what could not be done. no_new_privs must be set before."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return [f"seccomp: no filter for {machine}: processes and sockets are not closed to it"]
    code = program(machine, processes=processes, sockets=sockets)
    body = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
    given = struct.pack("@HP", len(code), ctypes.addressof(body))
    if libc.prctl(SET_SECCOMP, FILTER, given, 0, 0) != 0:
        return ["seccomp: this kernel has none: processes and sockets are not closed to it"]
    return []


def program(machine: str, *, processes: bool, sockets: str) -> Code:
    """Top down; every refusal stands right behind its question."""
    column = list(ARCHITECTURES).index(machine)
    number = {name: row[column] for name, row in CALLS.items() if row[column] >= 0}
    code: Code = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, ARCHITECTURES[machine]),
        _refuse(errno.EPERM),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        _refuse(errno.EPERM),
    ]
    refused = [*NEVER, *(() if processes else PROCESSES), *(("socket",) if sockets == "none" else ())]
    for name in refused:
        if name in number:
            code += [(EQUAL, 0, 1, number[name]), _refuse(errno.EPERM)]
    for name in ABSENT:
        code += [(EQUAL, 0, 1, number[name]), _refuse(errno.ENOSYS)]
    if not processes:
        code += _only_threads(number["clone"])
    if sockets == "tcp":
        code += _only_streams(number["socket"])
    return [*code, (RETURN, 0, 0, ALLOW)]


def _only_threads(clone: int) -> Code:
    return [
        (EQUAL, 0, 4, clone),
        (LOAD, 0, 0, FIRST),
        (SOME, 1, 0, THREAD),
        _refuse(errno.EPERM),
        (LOAD, 0, 0, NUMBER),
    ]


def _only_streams(socket: int) -> Code:
    """Landlock judges ports of TCP only: the internet's other kinds of sockets are closed here."""
    return [
        (EQUAL, 0, 12, socket),
        (LOAD, 0, 0, FIRST),
        (EQUAL, 2, 0, INTERNET[0]),
        (EQUAL, 1, 0, INTERNET[1]),
        _refuse(errno.EPERM),
        (LOAD, 0, 0, SECOND),
        (AND, 0, 0, KIND),
        (EQUAL, 1, 0, STREAM),
        _refuse(errno.EPERM),
        (LOAD, 0, 0, THIRD),
        (EQUAL, 2, 0, 0),
        (EQUAL, 1, 0, TCP),
        _refuse(errno.EPERM),
    ]


def _refuse(error: int) -> tuple[int, int, int, int]:
    return (RETURN, 0, 0, REFUSE | error)
