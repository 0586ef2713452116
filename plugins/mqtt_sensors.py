"""Sensor and state topics -> Observation; and which of their messages may be lost when too much comes.

What comes at QoS 0 may be shed: telemetry is asked for so, on a lane of its own, for a message that waits for its acknowledgement
holds up those behind it. What a producer numbered, or waits to hear about, never is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import aiomqtt

from plugins.mqtt_device import Device
from plugins.mqtt_message import Received, acknowledge, matches, observation
from plugins.mqtt_outbox import Outbox
from runtime.errors import BadConfig, BadInput, NotFound
from runtime.roles import Emit

QOS_0 = "qos 0"  # the class of what came at QoS 0 by its sender's will


class Sensors:
    """One lane's sensors; topics of `others` are for another lane. `confirmed` is told how a device says it is, before the
    journal has it. `declared`: the filters are those of telemetry."""

    def __init__(
        self, agent: str, sensors: Sequence[str], *, others: Sequence[str], devices: Sequence[Device] = (), declared: bool = False,
        emit: Emit, outbox: Outbox, confirmed: Callable[[str, bytes], None],
    ) -> None:  # fmt: skip
        self._agent = agent
        self._sensors = tuple(sensors)
        self._others = (*others, f"corrigible/{agent}/#")
        self._states = frozenset(device.state_topic for device in devices if device.state_topic)
        self._declared = declared
        self._emit = emit
        self._outbox = outbox
        self._confirmed = confirmed

    @property
    def filters(self) -> list[str]:
        """What to subscribe to; a state topic that a sensor filter covers already is not asked for twice."""
        states = [topic for topic in sorted(self._states) if not matches(topic, self._sensors)]
        return list(dict.fromkeys((*self._sensors, *states)))

    def spare(self, message: Received) -> str:
        """The class of a message that may be lost: the filter of `telemetry` that it matches, or `qos 0`."""
        if message.qos or message.topic in self._states or "producer" in message.told:
            return ""
        if not self._declared:
            return QOS_0
        return next((pattern for pattern in self._sensors if matches(message.topic, (pattern,))), QOS_0)

    async def take(self, message: Received) -> None:
        topic, body, told = message.topic, message.body, message.told
        state = topic in self._states
        if not state and (matches(topic, self._others) or not matches(topic, self._sensors)):
            return  # another lane's, our own voice, or a subscription of an earlier configuration
        if state and not message.retain:
            self._confirmed(topic, body)
        with suppress(BadInput, NotFound):  # it is in quarantine: the broker need not keep it
            await self._emit(observation(topic, body, told, retained=message.retain, name=message.name))
        acknowledge(self._outbox, self._agent, told)


def check_filter(topic: str) -> None:
    """Raises BadConfig if this is no topic filter."""
    try:
        aiomqtt.Wildcard(topic)
    except ValueError:
        raise BadConfig(
            f"{topic!r} is not a topic filter; `+` stands for one level, `#` for the rest, such as home/+/light"
        ) from None
