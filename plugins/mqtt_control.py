"""What people and devices say about decisions and commands: feedback, `applied`, the kill switch. None of it is ever shed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

from plugins import mqtt_feedback
from plugins.mqtt_device import Device
from plugins.mqtt_message import SOURCE, TEXT_LIMIT, Received, acknowledge, matches, observation
from plugins.mqtt_outbox import Outbox
from runtime import payload
from runtime.errors import BadInput, CorrigibleError, NotFound
from runtime.roles import Emit

OFF = (b"off", b"false", b"0")

log = structlog.get_logger("plugins.mqtt")


class Control:
    """`applied` is told a command's id and what went wrong, `kill` whether the switch is on."""

    def __init__(
        self, agent: str, *, feedback: Sequence[str], devices: Sequence[Device], emit: Emit, outbox: Outbox,
        applied: Callable[[str, str], Awaitable[None]], kill: Callable[[bool], None],
    ) -> None:  # fmt: skip
        self._agent = agent
        self._own = f"corrigible/{agent}/"
        self.feedback = (f"{self._own}feedback", *feedback)
        self._commanded = frozenset(device.topic for device in devices)
        self._emit = emit
        self._outbox = outbox
        self._applied = applied
        self._kill = kill

    @property
    def filters(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.feedback, f"{self._own}applied", f"{self._own}kill")))

    async def take(self, message: Received) -> None:
        topic, said = message.topic, message.body
        if topic == f"{self._own}applied":
            await self._settle(said)
        elif topic == f"{self._own}kill":
            self._switch(said, retained=message.retain)
        elif matches(topic, self.feedback) and not topic.endswith("/response"):
            await self._judged(message)
        else:
            return  # a subscription of an earlier configuration, or our own voice
        acknowledge(self._outbox, self._agent, message.told)

    async def _judged(self, message: Received) -> None:
        topic, said, at = message.topic, message.body, time.time()
        identity = f"{topic}:{message.told['id']}" if message.told.get("id") else message.name
        answer: dict[str, Any] = {"status": "ok"}
        try:
            feedback = mqtt_feedback.read(said, identity=identity, source=SOURCE, at=at)
        except BadInput as error:
            answer = {"status": "error", "error": str(error)}
            await self._keep(topic, said, str(error), identity, at)
        else:
            answer = {"status": "ok", "id": feedback.id, "decision": feedback.decision_id}
            try:
                await self._emit(feedback)
            except (BadInput, NotFound) as error:
                answer |= {"status": "error", "error": str(error)}
        self._respond(message, answer)

    async def _keep(self, topic: str, said: bytes, reason: str, identity: str, at: float) -> None:
        """Put a feedback that is none into quarantine, by handing the runtime what it will refuse."""
        try:
            payload.parse_scalar(said)
        except BadInput:
            with suppress(BadInput, NotFound):
                await self._emit(observation(topic, said, {}, retained=False))
            return
        try:
            await self._emit(mqtt_feedback.unreadable(said, reason, identity=identity, source=SOURCE, at=at))
        except CorrigibleError as error:
            log.debug("feedback refused", reason=str(error))

    def _respond(self, message: Received, answer: dict[str, Any]) -> None:
        """To the MQTT 5 response topic, else beside the feedback topic; never to where a device listens."""
        asked = message.response
        if (
            not asked
            or len(asked) > TEXT_LIMIT
            or set(asked) & set("+#")
            or asked in self._commanded
            or matches(asked, self.filters)
        ):
            asked = f"{message.topic}/response"
        self._outbox.put(asked, answer, message.correlation)

    async def _settle(self, said: bytes) -> None:
        """A device says `{"cmd_id": …}` for done, with `"error"` for not."""
        try:
            value = payload.parse(said)
        except BadInput:
            return
        if isinstance(value, dict) and isinstance(value.get("cmd_id"), str):
            await self._applied(value["cmd_id"], str(value.get("error") or ""))

    def _switch(self, said: bytes, *, retained: bool) -> None:
        """The kill switch: only a clear `off` takes it off; an empty message is how a retained one is deleted."""
        if not said:
            return
        on = said.strip(b'" \n').lower() not in OFF
        if retained and not on:  # an old one, kept by the broker: the switch may be pulled since
            log.warning("a retained `off` does not lift the kill switch; publish it without retain")
            return
        log.warning("kill switch by MQTT", on=on)
        try:
            self._kill(on)
        except OSError as error:  # it is on all the same, or stays so
            log.error("the kill switch's file cannot be changed", on=on, error=str(error))
