"""A policy worker without a model, in a process of its own: it picks by the hash of the situation.

It speaks the real protocol, so daemon, guard and journal do all they do with the model. It is not to be trusted: it picks
from the whole catalogue, also what the guard has to refuse. An adapter is loaded in earnest, into the model it was trained
on, for its fingerprint; torch is loaded for the first one only.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import CorrigibleError
from runtime.learning.jobs import Base
from runtime.messages import portion
from runtime.policy import protocol
from runtime.policy.base import DEFAULT, resolve
from runtime.policy.protocol import Answer, Done, Failed, Hello, Loaded, Request, Row, Score, Scored

if TYPE_CHECKING:
    from runtime.policy.backbone import Backbone

NONE = Base(directory="", revision="chaos", dtype="none")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    base = NONE if settings["model"] == DEFAULT else resolve(settings["model"], settings["dtype"])
    protocol.send(connection, Hello(base=base, pid=os.getpid()))
    while True:
        try:
            protocol.send(connection, answered(protocol.receive(connection), base))
        except (EOFError, ConnectionError):
            return


def answered(request: Request, base: Base) -> Answer:
    if isinstance(request, Score):
        rows = [picked(text, request) for text in request.texts]
        return Scored(number=request.number, rows=rows, adapter=request.adapter)
    if isinstance(request, protocol.Load):
        return loaded(request, base)
    if isinstance(request, protocol.Unload):
        return Done(number=request.number)
    return Failed(number=request.number, error="a worker without a model cannot look")


def loaded(request: protocol.Load, base: Base) -> Answer:
    try:
        backbone(base).load(request.adapter, Path(request.directory))
        found = backbone(base).fingerprint(request.adapter)
    except CorrigibleError as error:
        return Failed(number=request.number, error=str(error))
    return Loaded(number=request.number, fingerprint=found)


@cache
def backbone(base: Base) -> Backbone:
    from runtime.policy.backbone import Backbone

    return Backbone(base)


def picked(text: str, request: Score) -> Row:
    """All candidates alike but for the one that the situation's hash points at."""
    actions = list(request.catalogue.finite())
    best = int(portion(text) * len(actions))
    log_probs = [-0.1 if i == best else -5.0 for i in range(len(actions))]
    return Row(actions=actions, log_probs=log_probs, chosen=actions[best], log_p=-0.1)


if __name__ == "__main__":
    main()
