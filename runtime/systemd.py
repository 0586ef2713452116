"""Words to the service manager: `READY=1`, `WATCHDOG=1`, `STOPPING=1`; silent where no manager listens."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send one state line to systemd; False if nobody listens. It is a datagram: it never blocks for long, nor fails us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # a name in Linux' abstract namespace
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)
        try:
            channel.sendto(state.encode(), address)
        except OSError:  # the manager went away: that must not end the daemon
            return False
    return True
