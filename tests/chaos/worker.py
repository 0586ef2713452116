"""A policy worker without a model, in a process of its own: it picks by the hash of the situation.

It speaks the real protocol, so daemon, guard and journal do all they do with the model. It is not to be trusted: it picks
from the whole catalogue, also what the guard has to refuse.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from runtime.learning.jobs import Base
from runtime.messages import portion
from runtime.policy import protocol
from runtime.policy.protocol import Answer, Done, Failed, Hello, Loaded, Request, Row, Score, Scored


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    base = Base(directory="", revision="chaos", dtype="none")
    protocol.send(connection, Hello(base=base, pid=os.getpid()))
    while True:
        try:
            protocol.send(connection, answered(protocol.receive(connection)))
        except (EOFError, ConnectionError):
            return


def answered(request: Request) -> Answer:
    if isinstance(request, Score):
        rows = [picked(text, request) for text in request.texts]
        return Scored(number=request.number, rows=rows, adapter=request.adapter)
    if isinstance(request, protocol.Load):
        return Loaded(number=request.number, fingerprint=[])
    if isinstance(request, protocol.Unload):
        return Done(number=request.number)
    return Failed(number=request.number, error="a worker without a model cannot look")


def picked(text: str, request: Score) -> Row:
    """All candidates alike but for the one that the situation's hash points at."""
    actions = list(request.catalogue.finite())
    best = int(portion(text) * len(actions))
    log_probs = [-0.1 if i == best else -5.0 for i in range(len(actions))]
    return Row(actions=actions, log_probs=log_probs, chosen=actions[best], log_p=-0.1)


if __name__ == "__main__":
    main()
