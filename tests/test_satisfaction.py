"""Are people content? From the journal, through the control, to the terminal; and of every version of the weights."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from runtime import app, config
from runtime.errors import BadInput
from runtime.journal import Journal
from runtime.messages import Feedback, FeedbackKind, Forgotten, Release, Turn
from runtime.satisfaction import DAY, SETTLED, Satisfaction, measure, report
from tests.cli.test_commands import corrigible
from tests.stages import BRIGHT, DIM, decision, percept

FIXED = settings(derandomize=True, deadline=None)
NOW = 100 * DAY
FIRST, SECOND = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with Journal.open(tmp_path / "journal.db") as opened:
        yield opened


async def lived(
    journal: Journal, number: int, at: float, *, says: str = "", adapter: str = "base", by: str = "model"
) -> None:
    """One decision for bright light."""
    fields = {"says": says, "who": "Ana"} if says else {}
    woke = replace(
        percept(number, says or f"sensors {number}"), at=at, kind="speech" if says else "sensor", fields=fields
    )
    await journal.put(woke, replace(decision(number, BRIGHT, at), adapter=adapter, by=by))


async def say(journal: Journal, on: int, kind: FeedbackKind, at: float = NOW, rating: float | None = None) -> str:
    action = DIM if kind in ("correction", "override") else None
    id = f"fb-{on}-{kind}-{rating}"
    await journal.put(
        Feedback(id=id, decision_id=f"dc-{on}", kind=kind, source="Ana", at=at, action=action, rating=rating)
    )
    return id


def release(number: int, adapter: str, previous: str) -> Release:
    return Release(id=f"re-{number}", adapter=adapter, previous=previous, why="gate", at=float(number))


async def test_what_people_said_is_counted(journal: Journal) -> None:
    for number in range(10):
        await lived(journal, number, NOW - DAY + number)
    await say(journal, 0, "correction")
    await say(journal, 1, "override")
    await say(journal, 2, "acceptance")
    await say(journal, 3, "rating", rating=-1.0)
    await say(journal, 4, "rating", rating=0.5)
    found = (await Satisfaction(journal, lambda: NOW).report()).lately
    assert (found.decisions, found.judged, found.overridden) == (10, 3, 2)
    assert (found.override_rate, found.overridden_share, found.left) == pytest.approx((2 / 3, 0.2, 0.7))
    assert (found.ratings, found.rating, found.rating_trend.direction) == (2, -0.25, "too few to tell")
    assert (found.contacts, found.repeated_contacts) == (0, None)


async def test_the_newest_word_counts_and_what_was_taken_back_does_not(journal: Journal) -> None:
    await lived(journal, 0, NOW - DAY)
    await say(journal, 0, "acceptance")
    wrong = await say(journal, 0, "correction")
    assert (await Satisfaction(journal, lambda: NOW).report()).all.overridden == 1
    await journal.put(Forgotten(id="fg-1", feedback_id=wrong, by="person", at=NOW))
    found = (await Satisfaction(journal, lambda: NOW).report()).all
    assert (found.judged, found.overridden) == (1, 0)


async def test_an_answer_to_a_question_is_no_complaint(journal: Journal) -> None:
    await lived(journal, 0, NOW - DAY, by="doubt")
    await say(journal, 0, "correction")
    found = (await Satisfaction(journal, lambda: NOW).report()).all
    assert (found.decisions, found.judged, found.left) == (1, 0, 1.0)


async def test_rehearsals_and_what_may_still_be_corrected_are_left_out(journal: Journal) -> None:
    await lived(journal, 0, NOW - 1)
    await journal.put(replace(percept(1), synthetic=True), decision(1, BRIGHT, NOW - DAY))
    assert (await Satisfaction(journal, lambda: NOW).report()).all.decisions == 0
    assert (await Satisfaction(journal, lambda: NOW + SETTLED).report()).all.decisions == 1


async def test_who_says_the_same_again_has_come_back(journal: Journal) -> None:
    for number, words in enumerate(("more light please", "more light", "what a day")):
        await lived(journal, number, NOW - DAY + 60 * number, says=words)
    found = (await Satisfaction(journal, lambda: NOW).report()).lately
    assert (found.contacts, found.repeated) == (3, 1)


async def test_a_long_past_is_read_in_pages_and_in_order(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.journal.TURNS_PAGE", 3)
    for number in range(8):
        await lived(journal, number, float(number))
    assert [turn.decision for turn in await journal.turns(100)] == [f"dc-{n}" for n in range(8)]
    assert [turn.decision for turn in await journal.turns(5)] == [f"dc-{n}" for n in range(3, 8)]


async def test_a_page_that_looks_all_the_time_reads_once_a_minute(journal: Journal) -> None:
    now = NOW
    kept = Satisfaction(journal, lambda: now)
    assert (await kept.lately()).all.decisions == 0
    await lived(journal, 0, NOW - DAY)
    assert (await kept.lately()).all.decisions == 0
    now += 61
    assert (await kept.lately()).all.decisions == 1


# --- versions ---------------------------------------------------------------------------------------------------------


def turns(adapter: str, wrong: int, right: int, start: int) -> list[Turn]:
    said = [BAD] * wrong + [GOOD] * right
    return [
        Turn(decision=f"dc-{start + n}", at=float(start + n), scope="room", adapter=adapter, decided=GOOD, right=word)
        for n, word in enumerate(said)
    ]


GOOD, BAD = "bright", "dim"


def test_a_release_that_made_people_happier_is_seen_as_such() -> None:
    lived = [*turns("base", 30, 10, 0), *turns(FIRST, 5, 35, 40), *turns(SECOND, 25, 15, 80)]
    found = report(lived, [release(1, FIRST, "base"), release(2, SECOND, FIRST)], now=1e9).versions
    assert [(v.adapter, v.before, v.complaints) for v in found] == [
        ("base", "", "too few to tell"), (FIRST, "base", "fewer"), (SECOND, FIRST, "more"),
    ]  # fmt: skip
    assert [v.measured.override_rate for v in found] == [0.75, 0.125, 0.625]


def test_a_version_that_decided_little_is_not_judged() -> None:
    found = report([*turns("base", 30, 10, 0), *turns(FIRST, 0, 19, 40)], [release(1, FIRST, "base")], now=1e9).versions
    assert found[-1].complaints == "too few to tell"


@FIXED
@given(
    st.lists(
        st.tuples(st.sampled_from(["", GOOD, BAD]), st.sampled_from([None, -1.0, 0.0, 1.0]), st.sampled_from(["", "hello", "light"])),
        max_size=40,
    )
)  # fmt: skip
def test_shares_are_shares_and_parts_make_the_whole(rows: Sequence[tuple[str, float | None, str]]) -> None:
    lived = [
        Turn(decision=f"dc-{n}", at=float(n), scope="room", adapter=(FIRST, SECOND)[n % 2], decided=GOOD, right=right,
             rating=rating, words=words)
        for n, (right, rating, words) in enumerate(rows)
    ]  # fmt: skip
    found = report(lived, [], now=1e9)
    for share in (found.all.override_rate, found.all.overridden_share, found.all.left, found.all.repeated_contacts):
        assert share is None or 0 <= share <= 1
    for name in ("decisions", "judged", "overridden", "ratings", "contacts", "repeated"):
        assert getattr(found.all, name) == sum(getattr(version.measured, name) for version in found.versions)
    assert measure([], frozenset()).left is None


# --- control and command line -------------------------------------------------------------------------------------------


async def filled(tmp_path: Path) -> config.Config:
    """A daemon's data directory: thirty decisions of each of two versions, the second better."""
    async with Journal.open(tmp_path / "journal.db") as journal:
        for number in range(60):
            await lived(journal, number, DAY + number, adapter="base" if number < 30 else FIRST)
            await say(journal, number, "correction" if number < 24 else "acceptance")
            await say(journal, number, "rating", rating=-1.0 if number < 24 else 1.0)
        await journal.put(release(1, FIRST, "base"))
    return config.load(None, agent={"data": tmp_path})


async def test_the_control_tells_it_with_the_daemon_down(tmp_path: Path) -> None:
    async with app.offline(await filled(tmp_path)) as control:
        found = await control.looking.satisfaction(days=1e6)
        assert found["lately"] == found["all"]
        assert found["all"]["rating_trend"]["direction"] == "rising"
        assert found["all"]["override_trend"]["direction"] == "falling"
        assert found["versions"][-1]["complaints"] == "fewer"
        status = await control.looking.status()
        assert (status["satisfaction"]["decisions"], status["memory"]) == (0, True)  # long ago
        with pytest.raises(BadInput, match="days is a number above 0"):
            await control.looking.satisfaction(days=-1.0)


async def test_the_terminal_says_it_in_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    await filled(tmp_path / "data")
    said = corrigible("satisfaction", cwd=tmp_path).stdout
    assert "no decision yet that people could judge" in said
    assert (
        "24 of 60 judged decisions were corrected or overridden (40.0 %); corrections: going down (0.80, then 0.00)"
        in said
    )
    assert "60 ratings, +0.20 on average (from -1 to +1); going up (-0.60, then 1.00)" in said
    assert "happier: fewer complaints" in said
    told: dict[str, Any] = json.loads(corrigible("satisfaction", "--days", "30", "--json", cwd=tmp_path).stdout)
    assert (told["days"], told["all"]["override_rate"]) == (30.0, 0.4)
