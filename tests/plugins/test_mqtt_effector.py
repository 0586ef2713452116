"""The device's side: an effect at most once over crashes, none too late, none from an agent that was replaced."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins.broker import Broker
from plugins.mqtt import Mqtt
from plugins.mqtt_actor import Actor, Heard
from plugins.mqtt_client import DurableClient
from plugins.mqtt_device import Device
from plugins.mqtt_effector import UNCERTAIN, Effector, Memory
from runtime.messages import Action, Command
from tests.plugins.conftest import until
from tests.plugins.test_mqtt import made, opened, running

BELL = Device(name="bell", scope="hall", topic="home/hall/bell/set", values=["ring"], confirm="ack", once=True)


class PulledPlug(BaseException):
    """The device loses its power here."""


class Rig:
    """A device whose power can be cut before, in or after an effect."""

    def __init__(self, folder: Path) -> None:
        self.memory = folder / "device.log"
        self.effects: list[str] = []
        self.cut = ""
        self.effector = self.made()

    def made(self) -> Effector:
        actor: Any = None
        return Effector(actor, agent="test", memory=self.memory, carry_out=self.carry_out, clock=lambda: 1000.0)

    async def carry_out(self, heard: Heard) -> None:
        if self.cut == "before":
            raise PulledPlug
        self.effects.append(heard.properties["cmd_id"])
        if self.cut == "after":
            raise PulledPlug

    async def give(self, number: int, fence: int, not_after: float, cut: str) -> str | None:
        told = {"cmd_id": f"cm-{number}", "fence": str(fence), "not_after": str(not_after)}
        self.cut = cut
        try:
            return await self.effector.take(Heard("home/hall/bell/set", b"ring", told))
        except PulledPlug:
            self.effector.close()
            self.effector = self.made()
            return None


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(
    given_=st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 4), st.sampled_from([999.0, 1001.0]), st.sampled_from(["", "", "before", "after"])),
        max_size=25,
    )
)  # fmt: skip
def test_an_effect_at_most_once(tmp_path: Path, given_: list[tuple[int, int, float, str]]) -> None:
    (tmp_path / "device.log").unlink(missing_ok=True)
    rig = Rig(tmp_path)
    highest, ended = 0, dict[str, bool]()  # command -> whether the device could know that it was done
    for number, fence, not_after, cut in given_:
        identity, before = f"cm-{number}", len(rig.effects)
        said = asyncio.run(rig.give(number, fence, not_after, cut))
        if len(rig.effects) > before:
            assert fence >= highest
            assert not_after > 1000.0
        if identity in ended:
            assert said == ("" if ended[identity] else UNCERTAIN)
        elif said == "" or said is None:
            ended[identity] = said == ""
            highest = max(highest, fence)
    rig.effector.close()
    assert len(rig.effects) == len(set(rig.effects))


def test_half_a_line_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "device.log"
    path.write_bytes(b'{"fence":7,"cmd_id":"cm-1","state":"done","why":""}\n{"fence":9,"cmd_id":"cm-')
    memory = Memory(path)
    memory.close()
    assert (memory.fence, list(memory.known)) == (7, ["cm-1"])


async def test_a_command_is_carried_out_once_and_confirmed(broker: Broker, tmp_path: Path) -> None:
    plugin = _plugin(broker, tmp_path)
    rung: list[Heard] = []
    async with _device(broker, tmp_path, rung), running(plugin, opened()):
        outcome = await plugin.act(_command())
    assert outcome.status == "applied"
    assert [heard.properties["fence"] for heard in rung] == ["5"]


async def test_what_is_told_once_is_not_repeated_when_nobody_answers(broker: Broker, tmp_path: Path) -> None:
    plugin = _plugin(broker, tmp_path)
    house = Actor(broker.config.host, broker.config.port, producer="deaf", agent="test", topics=(BELL.topic,))
    async with house.connected(), running(plugin, opened()):
        outcome = await plugin.act(_command(seconds=5.0))  # two would be sent by then, if it were sent again
        heard = [await house.hear()]
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                heard.append(await house.hear())
    assert outcome.status == "uncertain"
    assert len(heard) == 1


async def test_a_late_confirmation_reaches_the_runtime(broker: Broker, tmp_path: Path) -> None:
    plugin, settled = _plugin(broker, tmp_path), list[tuple[str, str]]()

    async def hear(command_id: str, problem: str) -> None:
        settled.append((command_id, problem))

    plugin.context = replace(plugin.context, settled=hear)
    house = Actor(broker.config.host, broker.config.port, producer="late", agent="test", topics=(BELL.topic,))
    async with house.connected(), running(plugin, opened()):
        await house.send("corrigible/test/applied", {"cmd_id": "cm-9"})
    assert settled == [("cm-9", "")]


@pytest.mark.parametrize(("lease", "status"), [(0.0, "failed"), (60.0, "applied")])
async def test_a_device_with_a_lease_obeys_an_agent_that_says_it_lives(
    broker: Broker, tmp_path: Path, lease: float, status: str
) -> None:
    plugin, rung = _plugin(broker, tmp_path, lease=lease), list[Heard]()
    async with DurableClient(broker.config, identifier="past") as past:
        await past.publish("corrigible/test/alive", b'{"for": 60.0, "fence": 9}', qos=1, retain=True)
    async with _device(broker, tmp_path, rung, _nothing), running(plugin, opened()):
        outcome = await plugin.act(_command())
    assert (outcome.status, len(rung)) == (status, int(status == "applied"))


@pytest.mark.parametrize("armed", [True, False])
async def test_a_lease_that_is_not_renewed_ends_in_the_safe_state(broker: Broker, tmp_path: Path, armed: bool) -> None:
    plugin, safe, now = _plugin(broker, tmp_path, lease=0.6), asyncio.Event(), {"armed": True}
    plugin.context = replace(plugin.context, armed=lambda: now["armed"])

    async def make_safe() -> None:
        safe.set()

    async with _device(broker, tmp_path, [], make_safe) as effector:
        async with running(plugin, opened()):
            await until(lambda: effector._until is not None)
            safe.clear()  # it was made safe at its start
            if not armed:
                now["armed"] = False
                await safe.wait()
        await safe.wait()


async def _nothing() -> None:
    """Safe as it is."""


def _plugin(broker: Broker, folder: Path, lease: float = 0.0) -> Mqtt:
    plugin = Mqtt(sensors=["home/+/+"], actuators=[BELL], lease=lease)
    plugin.name, plugin.context = "Mqtt", replace(made(broker, folder).context, fence=5)
    return plugin


def _device(broker: Broker, folder: Path, rung: list[Heard], make_safe: Any = None) -> Any:
    return _Running(broker, folder, rung, make_safe)


class _Running:
    def __init__(self, broker: Broker, folder: Path, rung: list[Heard], make_safe: Any) -> None:
        self._actor = Actor(
            broker.config.host, broker.config.port, producer="bell", agent="test", topics=(BELL.topic, "corrigible/test/alive")
        )  # fmt: skip

        async def ring(heard: Heard) -> None:
            rung.append(heard)

        self._effector = Effector(
            self._actor, agent="test", memory=folder / "bell.log", carry_out=ring, make_safe=make_safe
        )

    async def __aenter__(self) -> Effector:
        self._connected = self._actor.connected()
        await self._connected.__aenter__()
        self._task = asyncio.create_task(self._effector.run())
        return self._effector

    async def __aexit__(self, *error: Any) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._effector.close()
        await self._connected.__aexit__(*error)


def _command(seconds: float = 20.0) -> Command:
    now = time.time()
    return Command(
        id="cm-1", decision_id="de-1", actuator="bell", action=Action(tool="bell", arguments={"level": "ring"}),
        expires_at=now + seconds, at=now, once=True,
    )  # fmt: skip


@pytest.mark.parametrize("fence", ["inf", "nan", "1e300"])
async def test_a_fence_that_is_no_number_is_an_answer(tmp_path: Path, fence: str) -> None:
    rig = Rig(tmp_path)
    assert "is none" in await rig.effector.take(
        Heard("home/hall/bell/set", b"ring", {"cmd_id": "cm-1", "fence": fence})
    )
    assert rig.effects == []
    rig.effector.close()
