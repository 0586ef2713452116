"""Frames between daemon and worker."""

from __future__ import annotations

import asyncio
import socket

import pytest

from runtime.catalogue import DO_NOTHING, Catalogue
from runtime.errors import Unavailable
from runtime.messages import NOTHING
from runtime.policy import protocol
from runtime.policy.protocol import Failed, Row, Score, Scored


def test_requests_travel_whole() -> None:
    ours, theirs = socket.socketpair()
    request = Score(texts=["今天\x00", "x"], catalogue=Catalogue(tools=(DO_NOTHING,)), adapter="base", gold=[NOTHING])
    with ours, theirs:
        protocol.send(ours, request)
        assert protocol.receive(theirs) == request
        ours.sendall(protocol.frame(request)[:7])
        ours.close()
        with pytest.raises(EOFError):
            protocol.receive(theirs)


async def test_answers_travel_whole() -> None:
    row = Row(actions=[NOTHING], log_probs=[float("-inf")], chosen=NOTHING, log_p=0.0)
    reader = asyncio.StreamReader()
    for answer in (Scored(rows=[row], adapter="base"), Failed(error="no")):
        reader.feed_data(protocol.frame(answer))
        assert await protocol.read_answer(reader) == answer


async def test_a_frame_without_bounds_is_refused() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\xff\xff\xff\xff")
    with pytest.raises(Unavailable):
        await protocol.read_answer(reader)
