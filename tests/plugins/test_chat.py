"""A conversation over the socket: the answer comes back, and what people say about it becomes feedback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from pathlib import Path

import msgspec
import pytest

from plugins.chat import Chat, reply_of
from runtime.config import BrokerConfig
from runtime.errors import NotFound, Unavailable
from runtime.messages import ASK, Action, Command, Decision, Feedback, Observation, Percept
from runtime.roles import Context


class Daemon:
    """Answers every message with itself in capitals; `deaf` answers nothing."""

    def __init__(self, chat: Chat, *, deaf: bool = False) -> None:
        self.chat = chat
        self.deaf = deaf
        self.feedback: list[Feedback] = []

    async def emit(self, message: Observation | Feedback) -> None:
        if isinstance(message, Feedback):
            if message.action is not None and message.action.arguments["text"] == "refuse":
                raise NotFound("nobody knows this decision")
            self.feedback.append(message)
            return
        if self.deaf:
            return
        text = msgspec.json.decode(message.payload)["input"]
        percept = Percept(id=f"pc-{message.id}", scope="chat", text=text, at=message.at, causes=(message.id,))
        reply = Action(tool="reply", arguments={"text": text.upper()})
        decision = Decision(
            id=f"dc-{text}", percept_id=percept.id, scope="chat", actions=(reply,), by="model", adapter="base",
            p_model=0.5, p_behaviour=1.0, at=message.at,
        )  # fmt: skip
        assert list(self.chat.criticise(percept)) == []
        assert list(self.chat.criticise(decision)) == []


@asynccontextmanager
async def _talking(tmp_path: Path, *, deaf: bool = False) -> AsyncIterator[tuple[Daemon, Path]]:
    chat = Chat(patience=0.05 if deaf else 10.0)
    chat.context = Context(agent="a", data=tmp_path, broker=BrokerConfig(mode="none"), zone=UTC)
    daemon = Daemon(chat, deaf=deaf)
    sensing = asyncio.create_task(chat.sense(daemon.emit))
    path = tmp_path / chat.socket
    async with asyncio.timeout(10):
        await chat.opened.wait()
        assert path.stat().st_mode & 0o077 == 0
        yield daemon, path
    sensing.cancel()
    with suppress(asyncio.CancelledError):
        await sensing
    assert not path.exists()


async def _dialogue(path: Path, *lines: bytes) -> list[str]:
    reader, writer = await asyncio.open_unix_connection(path)
    answers = []
    for line in lines:
        writer.write(line + b"\n")
        answers.append((await reader.readline()).decode().strip())
    writer.close()
    return answers


async def test_a_message_is_answered_and_the_answer_corrected(tmp_path: Path) -> None:
    async with _talking(tmp_path) as (daemon, path):
        answers = await _dialogue(path, b"+", b"hello", b"= hi there", b"bye", b"+", b"= refuse")
        assert answers[0].startswith("error: there is no answer yet")
        assert answers[1:5] == ["HELLO", "thank you, correction noted", "BYE", "thank you, acceptance noted"]
        assert answers[5] == "error: nobody knows this decision"
    correction, acceptance = daemon.feedback
    assert correction.decision_id == "dc-hello"
    assert correction.action == Action(tool="reply", arguments={"text": "hi there"})
    assert (acceptance.kind, acceptance.decision_id) == ("acceptance", "dc-bye")


async def test_two_people_get_their_own_answers(tmp_path: Path) -> None:
    async with _talking(tmp_path) as (_, path):
        answers = await asyncio.gather(_dialogue(path, b"one", b"three"), _dialogue(path, b"two"))
    assert list(answers) == [["ONE", "THREE"], ["TWO"]]


async def test_no_answer_and_an_endless_line_are_clear_errors(tmp_path: Path) -> None:
    async with _talking(tmp_path, deaf=True) as (daemon, path):
        assert (await _dialogue(path, b"hello"))[0].startswith("error: no answer within")
        assert (await _dialogue(path, b"x" * 20000))[0].startswith("error: a line has at most")
        assert not daemon.chat._waiting


async def test_act_needs_no_device() -> None:
    command = Command(id="c", decision_id="d", actuator="", action=Action(tool="reply"), expires_at=0.0, at=0.0)
    with pytest.raises(Unavailable, match="the decision is the reply"):
        await Chat().act(command)


def test_a_question_is_put_in_words() -> None:
    choices = (Action(tool="reply", arguments={"text": "at nine"}), Action(tool="lamp", arguments={"level": "dim"}))
    asked = Decision(
        id="dc", percept_id="pc", scope="chat", actions=(ASK,), by="doubt", adapter="a", p_model=0.4, p_behaviour=1.0,
        choices=choices, at=1.0,
    )  # fmt: skip
    assert reply_of(asked) == "which one? | at nine | lamp dim"
