"""The door: committed once, then told; hostile input ends in quarantine; a correction holds from the next decision on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import payload
from runtime.bus import Bus, Subscription
from runtime.errors import BadInput, NotFound
from runtime.ingest import Ingest
from runtime.journal import Journal
from runtime.messages import ASK, Action, Decision, Feedback, Observation
from runtime.metrics import Metrics
from runtime.situations import Catalogues
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, LAMP, decision, observation, percept


@dataclass
class Door:
    ingest: Ingest
    journal: Journal
    table: CorrectionTable
    observed: Subscription[Observation]
    taught: list[tuple[Decision, Feedback]]
    told: Subscription[Feedback]

    async def quarantined(self) -> list[str]:
        return [kept.reason for kept in await self.journal.quarantined()]


@asynccontextmanager
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A door before a journal in which the lamp was once made bright in the dark."""
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.put(percept(1), decision(1, BRIGHT, 1.0))
        bus, table, taught = Bus(), CorrectionTable(), list[tuple[Decision, Feedback]]()
        ingest = Ingest(
            journal, bus, table, Catalogues([{"room": (LAMP,)}]).of, Metrics(), lambda d, f: taught.append((d, f))
        )
        yield Door(ingest, journal, table, bus.subscribe(Observation), taught, bus.subscribe(Feedback))


def feedback(kind: str = "correction", *, id: str = "fb-1", on: str = "dc-1", **fields: Any) -> Feedback:
    return msgspec.convert(
        {"id": id, "decision_id": on, "kind": kind, "source": "Ana", "at": 2.0, **fields}, type=Feedback
    )


def text(action: str) -> Action:
    return Action(tool="text", arguments={"text": action})


async def test_an_observation_is_committed_before_it_is_told_and_once(tmp_path: Path) -> None:
    async with door(tmp_path) as d:
        seen = observation("home/room/light", b"5")
        await d.ingest.emit(seen)
        assert len(d.observed) == 1
        assert await d.journal.unperceived() == [seen]
        await d.ingest.emit(seen)
        assert len(d.observed) == 1, "a duplicate is dropped"
        assert (await d.journal.counts())["observation"] == 1


HOSTILE = {
    "too large": b'"' + b"x" * payload.SIZE_LIMIT + b'"',
    "too deep": b"[" * 40 + b"]" * 40,
    "too many keys": msgspec.json.encode({str(n): n for n in range(payload.KEY_LIMIT + 1)}),
    "not UTF-8": b"\xff\xfe",
    "NaN": b'{"value": NaN}',
    "infinite": b"1e999",
    "a key twice": b'{"value": 1, "value": 2}',
    "half a surrogate pair": b'{"says": "\\ud800"}',
    "too large an integer": b"9223372036854775808",
    "empty": b"  ",
    "control characters": b"on\x00off",
    "broken off": b'{"value": 1',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
async def test_hostile_payloads_end_in_quarantine(tmp_path: Path, body: bytes) -> None:
    async with door(tmp_path) as d:
        with pytest.raises(BadInput) as caught:
            await d.ingest.emit(observation("home/room/light", body))
        assert len(d.observed) == 0
        assert (await d.journal.counts())["observation"] == 0
        (kept,) = await d.journal.quarantined()
        assert (kept.reason, kept.size) == (str(caught.value), len(body))
        assert kept.payload == body[: payload.SIZE_LIMIT]


@settings(max_examples=50, deadline=None)
@given(bodies=st.lists(st.binary(max_size=40), max_size=5))
def test_any_bytes_are_taken_in_or_quarantined(tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes]) -> None:
    async def loop() -> None:
        async with door(tmp_path_factory.mktemp("door")) as d:
            for number, body in enumerate(bodies):
                try:
                    await d.ingest.emit(observation("home/room/light", body, number))
                except BadInput:
                    continue
            counts = await d.journal.counts()
            assert counts["observation"] + counts["quarantined"] == len(bodies)
            assert counts["observation"] == len(d.observed)

    asyncio.run(loop())


async def test_a_correction_in_words_is_read_and_holds_when_emit_returns(tmp_path: Path) -> None:
    async with door(tmp_path) as d:
        await d.ingest.emit(feedback(action=text("lamp dim")))
        assert d.table.lookup(percept(2)) == (DIM, "fb-1")
        (stored,) = await d.journal.feedback_of("dc-1")
        assert stored.action == DIM
        assert [(made.id, given_.action) for made, given_ in d.taught] == [("dc-1", DIM)]
        assert (await d.told.get()).action == DIM


async def test_the_same_feedback_twice_counts_once(tmp_path: Path) -> None:
    async with door(tmp_path) as d:
        for _ in range(2):
            await d.ingest.emit(feedback(action=DIM))
        assert (len(d.told), len(d.taught)) == (1, 1)
        assert (await d.journal.counts())["feedback"] == 1


async def test_an_acceptance_of_something_else_lifts_the_correction(tmp_path: Path) -> None:
    async with door(tmp_path) as d:
        await d.ingest.emit(feedback(action=DIM))
        await d.ingest.emit(feedback("acceptance", id="fb-2"))
        assert d.table.lookup(percept(2)) is None


async def test_the_newest_correction_wins(tmp_path: Path) -> None:
    async with door(tmp_path) as d:
        await d.ingest.emit(feedback(action=DIM))
        await d.ingest.emit(feedback("override", id="fb-2", action=text("lamp off")))
        found = d.table.lookup(percept(2))
        assert found is not None
        assert (found[0].arguments, found[1]) == ({"level": "off"}, "fb-2")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("correction", {}, "needs the right action"),
    ("override", {}, "needs the right action"),
    ("preference", {"rejected": BRIGHT}, "needs the right action"),
    ("correction", {"action": text("lamp brightest")}, "is outside what 'lamp' allows"),
    ("correction", {"action": text("door open")}, "there is no tool 'door'"),
    ("correction", {"action": Action(tool="lamp")}, "needs the argument 'level'"),
    ("preference", {"action": DIM, "rejected": text("door open")}, "there is no tool 'door'"),
    ("rating", {}, "a number from -1 to 1"),
    ("rating", {"rating": 1.01}, "a number from -1 to 1"),
    ("rating", {"rating": -2}, "a number from -1 to 1"),
    ("rating", {"rating": float("nan")}, "a number from -1 to 1"),
]


@pytest.mark.parametrize(("kind", "fields", "why"), REFUSED)
async def test_feedback_that_says_nothing_is_quarantined(
    tmp_path: Path, kind: str, fields: dict[str, Any], why: str
) -> None:
    async with door(tmp_path) as d:
        with pytest.raises(BadInput) as caught:
            await d.ingest.emit(feedback(kind, **fields))
        assert why in str(caught.value)
        assert await d.quarantined() == [str(caught.value)]
        assert await d.journal.feedback_of("dc-1") == []
        assert (len(d.told), d.taught, len(d.table)) == (0, [], 0)


@pytest.mark.parametrize("rating", [-1.0, 0.0, 1.0])
async def test_a_rating_is_kept(tmp_path: Path, rating: float) -> None:
    async with door(tmp_path) as d:
        await d.ingest.emit(feedback("rating", rating=rating))
        assert [f.rating for f in await d.journal.feedback_of("dc-1")] == [rating]


async def test_feedback_on_a_decision_nobody_made_is_kept_aside(tmp_path: Path) -> None:
    async with door(tmp_path) as d:
        with pytest.raises(NotFound, match="dc-404"):
            await d.ingest.emit(feedback(on="dc-404", action=DIM))
        (reason,) = await d.quarantined()
        assert "dc-404" in reason
        assert (len(d.told), len(d.table)) == (0, 0)


async def test_a_question_is_answered_by_the_right_action_and_by_nothing_else(tmp_path: Path) -> None:
    async with door(tmp_path) as d:
        asked = msgspec.structs.replace(decision(2, ASK, 1.0), by="doubt", choices=(DIM, BRIGHT))
        await d.journal.put(percept(2, "dusk"), asked)
        for kind, fields in (("acceptance", {}), ("rating", {"rating": 1.0})):
            with pytest.raises(BadInput, match="answered by the right action"):
                await d.ingest.emit(feedback(kind, id=f"fb-{kind}", on="dc-2", **fields))
        await d.ingest.emit(feedback(on="dc-2", action=text("lamp dim")))
        found = d.table.lookup(percept(3, "dusk"))
        assert found is not None
        assert found[0] == DIM
        (example,) = await d.journal.examples(10)
        assert (example.action, example.text, example.correction) == (DIM, "dusk", True)
        assert example.rejected is None, "it believed in nothing that was wrong"
        assert await d.journal.curve() == [], "a question is neither right nor wrong"
