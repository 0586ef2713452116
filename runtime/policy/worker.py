"""The policy worker process: answers `Score`, `Load` and `Unload` on an inherited socket until the daemon is gone.

    python -m runtime.policy.worker FD SETTINGS_JSON

It keeps no state of its own but caches: every call names its adapter, and the daemon tells a new worker what to load.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from runtime.errors import CorrigibleError
from runtime.policy import base, protocol
from runtime.policy.protocol import Answer, Done, Failed, Hello, Load, Loaded, Request, Score, Scored, Unload


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon; it closes the socket when it is time
    connection = socket.socket(fileno=int(sys.argv[1]))
    settings: dict[str, Any] = json.loads(sys.argv[2])
    try:
        scorer = _scorer(settings)
    except CorrigibleError as error:
        protocol.send(connection, Failed(error=str(error)))
        return
    protocol.send(connection, Hello(base=scorer.backbone.base, pid=os.getpid()))
    try:
        while True:
            request = protocol.receive(connection)
            protocol.send(connection, _answer(scorer, request))
    except (EOFError, ConnectionError):
        return


def _scorer(settings: dict[str, Any]) -> Any:
    found = base.resolve(settings["model"], settings["dtype"])
    from runtime.policy.backbone import Backbone
    from runtime.policy.scoring import Scorer

    return Scorer(
        Backbone(found, settings["threads"]),
        settings["instruction"],
        reply_tokens=settings["reply_tokens"],
        free_below=settings["free_below"],
        catalogue_tokens=settings["catalogue_tokens"],
    )


def _answer(scorer: Any, request: Request) -> Answer:
    """Whatever goes wrong inside a call is an answer too: one bad request must not end the worker."""
    try:
        return _do(scorer, request)
    except CorrigibleError as error:
        return Failed(error=str(error))
    except Exception as error:
        return Failed(error=f"the policy worker failed: {type(error).__name__}: {error}")


def _do(scorer: Any, request: Request) -> Answer:
    match request:
        case Score():
            rows = scorer.score(request.texts, request.catalogue, request.adapter, request.floor, request.gold)
            return Scored(rows=rows, adapter=request.adapter)
        case Load():
            scorer.backbone.load(request.adapter, Path(request.directory))
            return Loaded(fingerprint=scorer.backbone.fingerprint(request.adapter))
        case Unload():
            scorer.forget(request.adapter)
            scorer.backbone.unload(request.adapter)
    return Done()


if __name__ == "__main__":
    main()
