"""The command line against a running console: every question finds its address, and errors keep their words."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, get_type_hints

import pytest
from typer.testing import CliRunner

from runtime.cli import link
from runtime.cli.commands import app
from runtime.config import AgentConfig, Config
from runtime.control import Control
from runtime.errors import NotFound, Unavailable
from tests.console.conftest import ROW, Running, console

__all__ = ["console"]  # the fixture of the console's tests


def config_of(console: Running) -> Config:
    return Config(agent=AgentConfig(data=console.data))


@pytest.mark.parametrize("name", sorted(link.ROUTES))
def test_every_question_is_a_command_of_one_part_of_the_control(name: str) -> None:
    (part,) = [part for part in get_type_hints(Control).values() if hasattr(part, name)]
    assert inspect.iscoroutinefunction(getattr(part, name))


QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("status", {}), ("decisions", {"limit": 3, "scope": "hall"}), ("explain", {"decision_id": "d-1"}), ("modes", {}), ("held", {}), ("uncertain", {}),
    ("cycles", {"limit": 1}), ("adapters", {}), ("adapter", {"id": "base"}), ("curve", {}), ("kill", {"on": True}), ("learn", {}),
    ("set_safe", {"on": True}),
    ("feedback", {"decision_id": "d-1", "kind": "correction", "action": "lamp dim"}), ("say", {"text": "今天天气如何？"}),
    ("set_mode", {"actuator": "lamp", "mode": "act"}), ("approve", {"command_id": "c", "yes": True}), ("set_table", {"on": False}), ("set_memory", {"on": False}), ("satisfaction", {"days": 2.0}),
    ("backup", {"to": "/tmp/b"}), ("resolve", {"command_id": "c", "done": True}), ("promote", {"id": "base"}), ("rollback", {}), ("forget", {"source": "Eve"}), ("doubted", {}),
    ("vouch", {"names": ["Eve"]}), ("edit", {"feedback_id": "fb-1", "action": "lamp dim"}), ("sources", {}),
    ("mattered", {"decision_id": "d-1"}), ("prove", {"decision_id": "d-1"}), ("changes", {"id": "3f9c0a1b2c3d", "since": "base"}),
]  # fmt: skip


def test_every_question_is_asked_here() -> None:
    """`proof` is asked after `prove`, by the command."""
    assert {name for name, _ in QUESTIONS} | {"proof"} == set(link.ROUTES)


@pytest.mark.parametrize(("name", "arguments"), QUESTIONS)
async def test_question_is_answered_by_the_daemon(console: Running, name: str, arguments: dict[str, Any]) -> None:
    assert await asyncio.to_thread(link.ask, config_of(console), name, **arguments)


async def test_errors_keep_their_class_and_words(console: Running) -> None:
    with pytest.raises(NotFound, match="there is no decision 'a b%'"):
        await asyncio.to_thread(link.ask, config_of(console), "explain", decision_id="a b%")


async def test_wrong_token_is_one_sentence(console: Running) -> None:
    (console.data / "control.token").write_text("another")
    with pytest.raises(Exception, match="token is missing or wrong"):
        await asyncio.to_thread(link.ask, config_of(console), "status")


async def test_port_file_of_a_killed_daemon_counts_as_down(console: Running) -> None:
    (console.data / "http.port").write_text("1")
    with pytest.raises(Unavailable, match="not running"):
        await asyncio.to_thread(link.ask, config_of(console), "learn")


SHOWN = [
    (["status"], "3f9c0a1b2c3d (provisional)"),
    (["status"], "3 won and 1 lost of 20 situations"),
    (["status"], "canary: 3f9c0a1b2c3d makes 50% of the decisions"),
    (["status"], "decides 12 of 80 reference situations otherwise"),
    (["status"], "did worse than 3f9c0a1b2c3d"),
    (["status"], "12 feedbacks, all of Eve among it"),
    (["status"], "31 % of the last 60 (to be learnt as soon as a cycle may begin)"),
    (["status"], "lamp: acts by itself: on (1 of 12 put right); in silence: dim (3 of 7 like people)"),
    (["decisions"], "lamp off"),
    (["explain", "last"], "52.0 %"),
    (["explain", "last"], "12 times likelier"),
    (["explain", "last"], "not comparable"),
    (["explain", "last"], "●  dark"),
    (["explain", "last", "--prove"], "another decision, had its cause never been taught"),
    (["adapters", "changes"], "3f9c0a1b2c3d, compared with base"),
    (["adapters", "changes"], "1 of 200 earlier situations"),
    (["adapters", "changes", "3f9c0a1b2c3d", "--since", "base"], "moved by 1.20 %"),
    (["feedback", "last", "--correct", "lamp dim"], "correction fb-1"),
    (["feedback", "last", "--prefer", "lamp dim"], "preference fb-1"),
    (["forget", "--source", "Eve"], "forgotten: 2 feedbacks; a cycle makes weights without it"),
    (["forget", "--source", "Eve", "--wait"], "nothing that is left was taught by it"),
    (["forget", "--source", "Eve", "--wait"], "taught by 0 of 2 forgotten feedbacks"),
    (["forget", "--source", "Eve", "--wait"], "50 situations, 1 answered otherwise than before"),
    (["forget", "--source", "Eve", "--wait", "--json"], '"removed": ['),
    (["edit", "fb-1", "--correct", "lamp dim"], "correction fb-3 stands instead of fb-1; no serving weights"),
    (["sources"], "92.5 %"),
    (["doubts"], "12 of 12 words of Eve"),
    (["vouch", "Eve"], "vouched for Eve; still doubted: 0"),
    (["chat", "abc"], "cba"),
    (["modes", "lamp", "act"], "lamp"),
    (["kill", "on"], "nothing is commanded"),
    (["safe", "on"], "it starts again in safe mode"),
    (["status"], "NORMAL"),
    (["table", "off"], "the model answers everything"),
    (["memory", "off"], "the weights decide alone"),
    (
        ["status"],
        "left 80.0 % of 5 decisions as they were, rated +0.50 (too few to tell a trend), came back with the same thing 1 of 5 times",
    ),
    (["status"], "memory of similar situations off"),
    (["satisfaction"], "1 of 5 judged decisions were corrected or overridden (20.0 %)"),
    (["satisfaction", "--days", "2"], "the last 2 days"),
    (["approve"], "door open"),
    (["approve", "cmd-1", "--no"], "denied"),
    (["adapters", "list"], "▶"),
    (["learn", "--no-wait"], "a cycle starts"),
]


@pytest.mark.parametrize("ending", ["png", "svg"])
async def test_an_explanation_is_drawn(console: Running, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with words that a picture could mistake for formulas or markup."""
    monkeypatch.setitem(ROW, "text", "dark $x_{ <script> 今天天气如何？")
    monkeypatch.setitem(ROW, "adapter", "3f9c0a1b2c3d")
    monkeypatch.setenv("CORRIGIBLE_AGENT__DATA", str(console.data))
    monkeypatch.chdir(console.data)
    words = ["explain", "d-1", "--prove", "--picture", f"why.{ending}"]
    result = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert result.exit_code == 0, result.exception
    drawn = (console.data / f"why.{ending}").read_bytes()
    assert drawn.startswith({"png": b"\x89PNG", "svg": b"<?xml"}[ending])
    assert len(drawn) > 10_000
    assert b"<script>" not in drawn


async def test_a_picture_of_another_kind_is_refused(console: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(console.data)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["explain", "d-1", "--picture", "why.pickle"])
    assert "write .png or .svg" in str(result.exception)


@pytest.mark.parametrize(("words", "shown"), SHOWN)
async def test_commands_show_the_answer(
    console: Running, words: list[str], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRIGIBLE_AGENT__DATA", str(console.data))
    monkeypatch.chdir(console.data)
    monkeypatch.setattr("runtime.cli.show.out.width", 200, raising=False)
    result = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert result.exit_code == 0, result.exception
    assert shown in result.output


async def test_markup_and_control_characters_are_shown_not_obeyed(
    console: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CORRIGIBLE_AGENT__DATA", str(console.data))
    monkeypatch.chdir(console.data)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["chat", "\x1b]der["])  # the answer is it backwards
    assert "[red]·" in result.output
