"""The policy worker process: answers `Score`, `Load` and `Unload` on an inherited socket until the daemon is gone.

    python -m runtime.policy.worker FD SETTINGS_JSON

It keeps no state of its own but caches: every call names its adapter, and the daemon tells a new worker what to load. One
thread does everything: decisions first, those that wait together in one forward; then batches of an evaluation; adapters
are loaded in steps of about a millisecond in between, so that a release never holds a decision up.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from runtime.errors import CorrigibleError, Unavailable
from runtime.policy import base, protocol
from runtime.policy.protocol import (
    Answer,
    Done,
    Failed,
    Hello,
    Load,
    Loaded,
    Look,
    Looked,
    Request,
    Score,
    Scored,
    Unload,
)
from runtime.policy.steps import Steps

TOGETHER = 8  # decisions that share a forward, at most


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon; it closes the socket when it is time
    connection = socket.socket(fileno=int(sys.argv[1]))
    settings: dict[str, Any] = json.loads(sys.argv[2])
    try:
        scorer = _scorer(settings)
    except CorrigibleError as error:
        protocol.send(connection, Failed(error=str(error)))
        return
    gc.freeze()  # what lives for ever is not looked through again: a full collection takes 50 ms with torch's objects
    protocol.send(connection, Hello(base=scorer.backbone.base, pid=os.getpid()))
    try:
        Worker(connection, scorer).run()
    except (EOFError, ConnectionError):
        return


def _scorer(settings: dict[str, Any]) -> Any:
    found = base.resolve(settings["model"], settings["dtype"])
    from runtime.policy.encoder import backbone_of
    from runtime.policy.matching import scorer_of

    return scorer_of(
        backbone_of(found, settings["threads"], serving=True),
        settings["instruction"],
        reply_tokens=settings["reply_tokens"],
        free_below=settings["free_below"],
        catalogue_tokens=settings["catalogue_tokens"],
        looker=looker(settings),
    )


def looker(settings: dict[str, Any]) -> Any:
    """The encoder that says what situations are like; None where the model itself does."""
    wanted = settings["features"]
    if wanted == base.OWN:
        return None
    if wanted != base.SENTENCES and not Path(wanted).expanduser().is_dir():
        raise Unavailable(
            f"[policy] features: {wanted!r} is no directory; write `{base.OWN}`, `{base.SENTENCES}` or that of an encoder"
        )
    from runtime.policy.encoder import Encoder, is_encoder

    found = base.resolve(wanted, "float32")
    if not is_encoder(found.directory):
        raise Unavailable(
            f"[policy] features: {found.directory} is no encoder; give one of BERT's family, or `{base.OWN}`"
        )
    return Encoder(found, settings["threads"])


class Worker:
    """Takes requests in, and decides what to do next."""

    def __init__(self, connection: socket.socket, scorer: Any) -> None:
        self._connection = connection
        self._scorer = scorer
        self._live: deque[Score] = deque()
        self._bulk: deque[Score | Look] = deque()
        self._loads: deque[tuple[Load, Steps[Loaded]]] = deque()
        self._held_ms = 0.0  # by the longest step of the load that is under way

    def run(self) -> None:
        """Until the daemon closes the connection (EOFError)."""
        while True:
            self._take_in()
            if self._live:
                self._decide()
            elif self._loads:
                self._advance()
            elif self._bulk:
                request = self._bulk.popleft()
                self._send(request, self._guarded(request, self._look if isinstance(request, Look) else self._score))

    def _take_in(self) -> None:
        """Everything that has arrived; waits only if there is nothing to do."""
        idle = not (self._live or self._bulk or self._loads)
        while select.select([self._connection], [], [], None if idle else 0)[0]:
            self._accept(protocol.receive(self._connection))
            idle = False

    def _accept(self, request: Request) -> None:
        match request:
            case Score():
                (self._live if request.live else self._bulk).append(request)
            case Look():
                self._bulk.append(request)
            case Load():
                self._loads.append((request, self._loading(request)))
            case Unload():
                self._send(request, self._guarded(request, self._unload))

    def _decide(self) -> None:
        """The first decision, with all others that can share its forwards."""
        from runtime.policy.scoring import picked

        first = self._live.popleft()
        if len(first.texts) > 1 or first.gold or not picked(first.catalogue):
            self._send(first, self._guarded(first, self._score))
            return
        together = [first]
        for other in tuple(self._live):
            same = (other.adapter, other.floor, other.feature) == (first.adapter, first.floor, first.feature)
            if (
                same
                and len(other.texts) == 1
                and not other.gold
                and picked(other.catalogue)
                and len(together) < TOGETHER
            ):
                together.append(other)
                self._live.remove(other)
        try:
            asked = [(request.texts[0], request.catalogue) for request in together]
            rows = self._scorer.score_together(asked, first.adapter, first.floor, first.feature)
        except Exception:  # one of them is to blame: each for itself
            for request in together:
                self._send(request, self._guarded(request, self._score))
            return
        for request, row in zip(together, rows, strict=True):
            self._send(request, Scored(rows=[row], adapter=request.adapter))

    def _score(self, request: Score) -> Answer:
        rows = self._scorer.score(
            request.texts, request.catalogue, request.adapter, request.floor, request.gold, request.feature
        )
        return Scored(rows=rows, adapter=request.adapter)

    def _look(self, request: Look) -> Answer:
        return Looked(features=self._scorer.look(request.texts, request.catalogue))

    def _unload(self, request: Unload) -> Answer:
        begun = time.perf_counter()
        self._scorer.forget(request.adapter)
        self._scorer.backbone.unload(request.adapter)
        return Done(held_ms=_since(begun))

    def _advance(self) -> None:
        """One step of the first load."""
        request, steps = self._loads[0]
        begun = time.perf_counter()
        try:
            next(steps)
            self._held_ms = max(self._held_ms, _since(begun))
            return
        except StopIteration as end:
            answer: Answer = replace(end.value, held_ms=max(self._held_ms, _since(begun)))
        except Exception as error:
            answer = _failed(error)
        self._held_ms = 0.0
        self._loads.popleft()
        self._send(request, answer)

    def _loading(self, request: Load) -> Steps[Loaded]:
        backbone = self._scorer.backbone
        yield from backbone.loading(request.adapter, Path(request.directory))
        found = yield from backbone.fingerprinting(request.adapter)
        yield from self._scorer.warming(request.adapter)
        return Loaded(fingerprint=found)

    def _guarded(self, request: Any, do: Callable[[Any], Answer]) -> Answer:
        """Whatever goes wrong inside a call is an answer too: one bad request must not end the worker."""
        try:
            return do(request)
        except Exception as error:
            return _failed(error)

    def _send(self, request: Request, answer: Answer) -> None:
        protocol.send(self._connection, replace(answer, number=request.number))


def _since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1000


def _failed(error: Exception) -> Failed:
    if isinstance(error, CorrigibleError):
        return Failed(error=str(error))
    return Failed(error=f"the policy worker failed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
