"""What a person ought to know is a row: the same sentence once, with its count; old ones are no longer shown."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from runtime import app as application
from runtime import config
from runtime.cli import asking
from runtime.control.alarms import alarms
from runtime.errors import Unavailable
from runtime.journal import Journal
from runtime.notices import DAY, Notices


async def test_the_same_sentence_is_one_row_with_its_count_over_restarts(tmp_path: Path) -> None:
    for run in (1.0, 2.0, 3.0):
        async with Journal.open(tmp_path / "journal.db") as journal:
            notices = Notices(journal, clock=lambda run=run: run)  # type: ignore[misc]
            notices.tell("broker", "it forgets")
            if run == 2.0:
                notices.tell("session_lost", "gone")
            await notices.close()
            shown = await notices.shown()
    assert shown == [
        {"kind": "broker", "text": "it forgets", "at": 3.0, "first": 1.0, "times": 3},
        {"kind": "session_lost", "text": "gone", "at": 2.0, "first": 2.0, "times": 1},
    ]


async def test_what_is_older_than_a_day_and_of_an_earlier_run_is_not_shown(tmp_path: Path) -> None:
    now = [0.0]
    async with Journal.open(tmp_path / "journal.db") as journal:
        first = Notices(journal, clock=lambda: now[0])
        first.tell("broker", "it forgets")
        await first.close()
        now[0] = 2 * DAY
        assert [found["text"] for found in await first.shown()] == ["it forgets"]  # this run's, still true
        assert await Notices(journal, clock=lambda: now[0]).shown() == []


@pytest.mark.parametrize(
    ("call", "error"),
    [("set_metadata", Unavailable("the disk is full")), ("metadata", sqlite3.OperationalError("disk I/O error"))],
)
async def test_what_the_journal_could_not_have_is_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: Exception
) -> None:
    async def full(*arguments: object) -> None:
        raise error

    async with Journal.open(tmp_path / "journal.db") as journal:
        notices = Notices(journal)
        with monkeypatch.context() as patch:
            patch.setattr(journal, call, full)
            notices.tell("broker", "it forgets")
            await notices.close()
            assert await notices.shown() == []
        notices.tell("broker", "another")
        await notices.close()
        assert {found["text"] for found in await notices.shown()} == {"it forgets", "another"}


async def test_a_plugins_notice_is_in_the_status_that_a_person_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the real daemon, without a model: from a plugin's context to the terminal, and there again after a restart."""
    settings = config.load(None, agent={"data": tmp_path}, broker={"mode": "none"})
    monkeypatch.chdir(tmp_path)
    async with application.opened(settings.model_copy(update={"plugin": [{"use": "quiet_hours"}]}), live=False) as app:
        app.plugins[0].context.notice("session_lost", "the broker has forgotten")
    async with application.opened(settings, live=False) as app:
        found = await app.control.looking.status()
    assert [notice["text"] for notice in found["notices"]] == ["the broker has forgotten"]
    asking._alarms(found)
    assert "the broker has forgotten" in capsys.readouterr().out


def test_alarms_are_sentences_and_none_where_nothing_is_wrong() -> None:
    quiet: dict[str, Any] = {"lost": None, "missing": [], "notices": [], "shed": {}}
    assert list(alarms(quiet)) == []
    gap = {"first": 4, "last": 6, "producer": "house", "boot": "1"}
    found = {"lost": "rows after noon", "missing": [gap], "notices": [{"text": "it forgets"}], "shed": {"home/#": 3}}
    assert [alarm["text"] for alarm in alarms(found)] == [
        "rows after noon",
        "messages 4 to 6 of house (boot 1) never came, all of them or some",
        "it forgets",
        "3 messages of home/# in the last hour, because too many came",
    ]
