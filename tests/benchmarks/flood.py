"""A crowd of sensors in one process: publishes as fast as it is told to, and says how many messages the broker was given.

    python -m tests.benchmarks.flood PORT QOS RATE COUNT

Plain MQTT 3.1.1 by hand (sections 3.1 and 3.3 of the OASIS standard), for a client library would be slower than what it has to flood.
RATE is messages a second, 0 as fast as WINDOW unacknowledged ones allow. Prints one JSON line at the end.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

TOPICS = 100
WINDOW = 1000  # unacknowledged messages at QoS 1
STEP = 0.01  # seconds between two bursts


def connect(port: int) -> socket.socket:
    """Raises ConnectionError if the broker refuses."""
    link = socket.create_connection(("127.0.0.1", port))
    name = b"flood"
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2, "big") + name  # clean session, no keep-alive
    link.sendall(bytes((0x10, len(body))) + body)
    if link.recv(4)[3:] != b"\x00":
        raise ConnectionError("the broker refused the flood")
    return link


def publish(number: int, qos: int) -> bytes:
    topic = f"load/room/s{number % TOPICS}".encode()
    mark = (number % 65535 + 1).to_bytes(2, "big") if qos else b""
    body = len(topic).to_bytes(2, "big") + topic + mark + str(number).encode()
    return bytes((0x30 | qos << 1, len(body))) + body


class Acknowledged:
    """Counts PUBACKs, of four bytes each."""

    def __init__(self, link: socket.socket) -> None:
        self.bytes = 0
        self._link = link
        self._some = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while part := self._link.recv(65536):
            with self._some:
                self.bytes += len(part)
                self._some.notify()

    def wait_for(self, count: int) -> None:
        with self._some:
            self._some.wait_for(lambda: self.bytes >= 4 * count)


def main(port: int, qos: int, rate: float, count: int) -> None:
    link = connect(port)
    acknowledged = Acknowledged(link)
    began, sent, burst = time.monotonic(), 0, max(1, round(rate * STEP)) if rate else 100
    while sent < count:
        part = min(burst, count - sent)
        link.sendall(b"".join(publish(number, qos) for number in range(sent, sent + part)))
        sent += part
        if qos:
            acknowledged.wait_for(sent - WINDOW)
        if rate:
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))
    if qos:
        acknowledged.wait_for(count)
    link.sendall(b"\xe0\x00")
    link.shutdown(socket.SHUT_WR)  # the broker reads all that was sent before it closes
    print(json.dumps({"sent": sent, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
