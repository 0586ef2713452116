"""Fuzzing: hostile messages go the whole way in, through parser, MQTT inbox, feedback and perception, and each ends in one counted place.

    python -m tests.chaos.fuzz_payloads [--count 1000000] [--seed 0]

Only declared errors may come out (BadInput, in the parsers; none at all, in the inbox). The clock is read around every
message: what is longer than 50 ms of the thread's own time would hold the daemon's loop up.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, cast

import aiomqtt
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from plugins import mqtt_feedback
from plugins.mqtt_control import Control
from plugins.mqtt_message import read
from plugins.mqtt_outbox import Outbox
from plugins.mqtt_sensors import Sensors
from runtime import payload
from runtime.bus import Bus
from runtime.config import PerceptionConfig
from runtime.errors import BadInput
from runtime.journal.rows import row
from runtime.messages import Feedback, Message, Observation
from runtime.perception import Perception
from tests.chaos.hostile import Source

STALL = 0.05  # seconds
LIFE = 2000  # messages after which the world is new: a full one takes no more names


@dataclass
class Figures:
    """What became of the messages."""

    ends: Counter[str] = field(default_factory=Counter)
    offered: int = 0
    stalls: int = 0
    longest: float = 0.0  # seconds of the thread's own time
    slowest: str = ""
    bytes: int = 0


class Way:
    """The real inbox and the real perception, without a broker and a journal between them: rows are made, not stored."""

    def __init__(self) -> None:
        self.ends = Counter[str]()
        self._outbox = Outbox()
        self._control = Control(
            "a", feedback=("judge/#",), devices=(), emit=self._emit, outbox=self._outbox, applied=self._applied,
            kill=lambda on: self._end("switched"),
        )  # fmt: skip
        self._sensors = Sensors(
            "a", ("home/#", "+/speech"), others=self._control.feedback, emit=self._emit, outbox=self._outbox,
            confirmed=lambda topic, body: None,
        )  # fmt: skip
        self.renew()

    async def _applied(self, command: str, problem: str) -> None:
        self._end("settled")

    def renew(self) -> None:
        nothing = cast(Any, None)
        self._perception = Perception(nothing, Bus(), PerceptionConfig(clock=["hall/clock"]), [], zone=UTC)

    def take(self, message: aiomqtt.Message) -> str:
        """Where it ended; exactly one place."""
        before = self.ends.total()
        received = read(message)
        _now(self._control.take(received))
        _now(self._sensors.take(received))
        ended = self.ends.total() - before
        if ended > 1:
            raise AssertionError(f"one message ended in {ended} places")
        if not ended:
            self._end("nothing to keep")
        return ""

    def _end(self, place: str) -> None:
        self.ends[place] += 1

    async def _emit(self, message: Message) -> None:
        if isinstance(message, Feedback):
            _storable(message)
            self._end("feedback" if message.kind != "correction" or message.action else "feedback, unreadable")
            return
        assert isinstance(message, Observation)
        _storable(message)
        try:
            percepts = self._perception.perceive(message)
        except BadInput as error:
            _storable(payload.quarantined(message, str(error)))
            self._end("quarantined")
            raise
        for percept in percepts:
            _storable(percept)
        self._end("perceived" if percepts else "absorbed")


def _now(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("the inbox waited for something")


def _storable(message: Message) -> None:
    """As SQLite will want it: texts are UTF-8, whole numbers have 64 bits."""
    for value in row(message)[1].values():
        if isinstance(value, str):
            value.encode()


def parsers(body: bytes) -> str:
    """The parsers by themselves: a value that can be written as JSON again, or BadInput."""
    ends = []
    for parse in (payload.parse, payload.parse_scalar):
        try:
            json.dumps(parse(body), allow_nan=False, ensure_ascii=False).encode()
            ends.append("read")
        except BadInput:
            ends.append("refused")
    try:
        _storable(mqtt_feedback.read(body, identity="x", source="y", at=0.0))
    except BadInput as error:
        _storable(mqtt_feedback.unreadable(body, str(error), identity="x", source="y", at=0.0))
    return " and ".join(ends)


def message(source: Source) -> aiomqtt.Message:
    properties = Properties(PacketTypes.PUBLISH)
    if pairs := source.properties():
        properties.UserProperty = pairs
    if (asked := source.response()) is not None:
        object.__setattr__(properties, "ResponseTopic", asked)  # unchecked, as from the wire
    body = source.payload()
    return aiomqtt.Message(source.topic(body), body, 1, source.rng.random() < 0.1, 0, properties)


def fuzz(count: int, seed: int) -> Figures:
    """Raises whatever no part declared, with the number of the message."""
    source, way, figures = Source(seed), Way(), Figures()
    for number in range(count):
        one = message(source)
        body = one.payload
        begun = time.thread_time()
        try:
            if number % 4:
                way.take(one)
            else:
                figures.ends[f"parsers: {parsers(body)}"] += 1
        except Exception as error:
            error.add_note(f"message {number} of seed {seed}: {str(one.topic)[:200]!r} {body[:300]!r}")
            raise
        _timed(figures, time.thread_time() - begun, one, body)
        if number % LIFE == 0:
            way.renew()
    figures.ends += way.ends
    return figures


def _timed(figures: Figures, seconds: float, one: aiomqtt.Message, body: bytes) -> None:
    figures.offered += 1
    figures.bytes += len(body)
    figures.stalls += seconds > STALL
    if seconds > figures.longest:
        figures.longest = seconds
        figures.slowest = f"{len(body)} bytes {body[:30]!r} on {str(one.topic)[:40]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    begun = time.monotonic()
    figures = fuzz(options.count, options.seed)
    lost = figures.offered - figures.ends.total()
    seconds = time.monotonic() - begun
    ends = ", ".join(f"{place} {n}" for place, n in sorted(figures.ends.items()))
    print(
        f"{figures.offered} messages, {figures.bytes >> 20} MB, {figures.offered / seconds:.0f}/s: {lost} uncounted, {figures.stalls} longer "
        f"than 50 ms, longest {figures.longest * 1000:.1f} ms ({figures.slowest}); seed {options.seed} ({ends})"
    )
    return 1 if lost or figures.stalls else 0


if __name__ == "__main__":
    sys.exit(main())
