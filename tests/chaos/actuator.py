"""Devices that write down every command they are told and every effect it had, and confirm it; some stay deaf to some.

A heater remembers the command ids it carried out: the same one again has no second effect, and is confirmed again. A bell
remembers nothing: it rings whenever it is told.
"""

from __future__ import annotations

import asyncio
import time

import aiomqtt
import msgspec

from runtime.messages import portion
from tests.chaos.history import Effect, History, Received
from tests.chaos.link import Link, body, told

ONCE = "_bell"  # devices that are told once
MUTE = 0.4  # share of the commands that ring a bell and are not confirmed
DEAF = 0.03  # share of the commands that are neither carried out nor confirmed, however often they come


class Actuators:
    """All of them on one connection: `act/<name>/set`."""

    def __init__(self, port: int, agent: str, history: History, deaf: float = DEAF) -> None:
        self._applied = f"corrigible/{agent}/applied"
        self._history, self._deaf = history, deaf
        self._done: set[tuple[str, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.link = Link(port, "actuators", ("act/+/set",), self._heard)

    def _heard(self, message: aiomqtt.Message) -> None:
        received = understood(message)
        self._history.append(received)
        once, drawn = received.actuator.endswith(ONCE), portion(received.command)
        if received.retained or (received.command and drawn < self._deaf):
            return
        key = (received.actuator, received.command)
        if key not in self._done or once:
            self._done.add(key)
            self._history.append(
                Effect(actuator=received.actuator, command=received.command, value=received.value, at=received.at)
            )
        if once and drawn < MUTE:
            return
        task = asyncio.create_task(self._confirm(received.command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def note_retained(self, message: aiomqtt.Message) -> None:
        """For a newcomer's ears: only what the broker kept for whoever comes."""
        if message.retain:
            self._history.append(understood(message))

    async def _confirm(self, command: str) -> None:
        await self.link.publish(self._applied, msgspec.json.encode({"cmd_id": command}))


def understood(message: aiomqtt.Message) -> Received:
    properties = told(message)
    return Received(
        actuator=str(message.topic).split("/")[1],
        command=properties.get("cmd_id", ""),
        value=body(message).decode(errors="replace"),
        not_after=float(properties.get("not_after", "inf")),
        fence=int(properties.get("fence", 0)),
        retained=message.retain,
        at=time.time(),
    )
