"""The worker's order of work: decisions first and together, adapters loaded in between, one bad request its own affair."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runtime import framing
from runtime.catalogue import DO_NOTHING, Catalogue, Tool
from runtime.learning.jobs import Base
from runtime.messages import Message
from runtime.policy import protocol
from runtime.policy.protocol import Answer, Failed, Load, Loaded, Score, Scored
from runtime.policy.scoring import Scorer
from runtime.policy.worker import Worker
from tests.policy import tiny

LAMP = Catalogue(
    tools=(Tool(name="lamp", arguments={"level": {"enum": ["off", "dim", "on"]}}, required=("level",)), DO_NOTHING)
)
HEAT = Catalogue(tools=(Tool(name="heat", arguments={"to": {"enum": [17, 19, 21]}}, required=("to",)), DO_NOTHING))
PATIENCE = 60.0  # seconds after which a test that hangs fails


@pytest.fixture
def ours() -> Iterator[tuple[socket.socket, socket.socket]]:
    mine, theirs = socket.socketpair()
    mine.settimeout(PATIENCE)
    with mine, theirs:
        yield mine, theirs


def answers(ours: tuple[socket.socket, socket.socket], scorer: Scorer, *requests: Message) -> list[Answer]:
    """Ask all at once, before the worker looks; its answers in the order they came."""
    mine, theirs = ours
    for request in requests:
        protocol.send(mine, request)

    def work() -> None:
        with suppress(EOFError, OSError):
            Worker(theirs, scorer).run()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    found = [asyncio.run(_next(mine)) for _ in requests]
    mine.shutdown(socket.SHUT_WR)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return found


async def _next(mine: socket.socket) -> Answer:
    """One frame, and not a byte more."""
    (length,) = framing.LENGTH.unpack(_exactly(mine, framing.LENGTH.size))
    reader = asyncio.StreamReader()
    reader.feed_data(framing.LENGTH.pack(length) + _exactly(mine, length))
    return await protocol.read_answer(reader)


def _exactly(mine: socket.socket, count: int) -> bytes:
    return framing._exactly(mine, count)


def test_a_decision_does_not_wait_for_a_load(
    ours: tuple[socket.socket, socket.socket], scorer: Scorer, model: Base, tmp_path: Path
) -> None:
    load = Load(number=1, adapter="new", directory=str(tiny.adapter(model, tmp_path / "new", 1)))
    bulk = Score(number=2, texts=["x", "y"], catalogue=LAMP, adapter="base")
    live = Score(number=3, live=True, texts=["It is dark."], catalogue=LAMP, adapter="base")
    found = answers(ours, scorer, load, bulk, live)
    assert [type(answer) for answer in found] == [Scored, Loaded, Scored]
    assert [answer.number for answer in found] == [3, 1, 2]  # type: ignore[union-attr]
    assert isinstance(found[1], Loaded)
    assert found[1].fingerprint == pytest.approx(scorer.backbone.fingerprint("new"), abs=1e-3)


def test_the_prompts_in_use_are_ready_before_an_adapter_serves(
    ours: tuple[socket.socket, socket.socket], scorer: Scorer, model: Base, tmp_path: Path
) -> None:
    scorer.score(["x"], LAMP, "base")
    answers(ours, scorer, Load(number=1, adapter="warm", directory=str(tiny.adapter(model, tmp_path / "warm", 2))))
    assert ("warm", repr(scorer.prompt(LAMP).prefix)) in scorer._prefixes


def test_decisions_that_wait_share_their_forwards(
    ours: tuple[socket.socket, socket.socket], scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [("It is dark.", LAMP), ("It is cold in here.", HEAT), ("Good night", LAMP)]
    alone = [scorer.score([text], catalogue, "base")[0] for text, catalogue in asked]
    calls, hidden = [0], scorer.backbone.hidden

    def counted(*given: Any) -> Any:
        calls[0] += 1
        return hidden(*given)

    monkeypatch.setattr(scorer.backbone, "hidden", counted)
    found = answers(
        ours, scorer,
        *(Score(number=i, live=True, texts=[t], catalogue=c, adapter="base") for i, (t, c) in enumerate(asked)),
    )  # fmt: skip
    assert calls[0] <= 3  # one for the situations, then waves over the tries
    for row, answer in zip(alone, found, strict=True):
        assert isinstance(answer, Scored)
        assert answer.rows[0].log_probs == pytest.approx(row.log_probs, abs=1e-3)


def test_a_bad_request_is_an_answer(ours: tuple[socket.socket, socket.socket], scorer: Scorer) -> None:
    found = answers(
        ours, scorer,
        Load(number=1, adapter="none", directory="/does/not/exist"),
        Score(number=2, live=True, texts=["x"], catalogue=LAMP, adapter="unknown"),
        Score(number=3, live=True, texts=["x"], catalogue=LAMP, adapter="base"),
    )  # fmt: skip
    by_number = {answer.number: answer for answer in found}  # type: ignore[union-attr]
    assert isinstance(by_number[1], Failed)
    assert "cannot be read" in by_number[1].error
    assert by_number[2] == Failed(number=2, error="adapter 'unknown' is not loaded")
    assert isinstance(by_number[3], Scored)
