"""A redelivery gets the name of the first delivery, over a kill too; whatever might be another message gets a name of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from plugins.broker import Broker
from plugins.mqtt import Mqtt
from plugins.mqtt_client import IN_FLIGHT, DurableClient
from plugins.mqtt_redelivered import Redelivered
from tests.chaos.proxy import PUBACK, Proxy
from tests.plugins.conftest import kinds, until
from tests.plugins.test_mqtt import Door, made, opened, running


def _filled(path: Path | None = None, *, first: int = 1, count: int = IN_FLIGHT, boot: Path | None = None) -> list[str]:
    """The names of so many messages, all alike, with ascending packet ids."""
    seen = Redelivered(path) if boot is None else Redelivered(path, boot)
    names = [seen.name("t", b"1", mid, False) for mid in range(first, first + count)]
    assert len(set(names)) == count
    seen.close()
    return names


def test_the_last_ones_are_known_again_after_a_kill_and_none_else(tmp_path: Path) -> None:
    names = _filled(tmp_path / "f", count=IN_FLIGHT + 10)
    seen = Redelivered(tmp_path / "f")
    assert [seen.name("t", b"1", mid, True) for mid in range(11, IN_FLIGHT + 11)] == names[10:]
    assert seen.name("t", b"1", 10, True) not in names  # the broker waited for its acknowledgement
    assert Redelivered(tmp_path / "f").name("t", b"1", IN_FLIGHT + 10, False) not in names


@pytest.mark.parametrize(
    ("topic", "payload", "mid", "again"),
    [("t", b"1", 5, False), ("t", b"2", 5, True), ("u", b"1", 5, True), ("t", b"1", 5000, True)],
)
def test_another_message_is_a_new_one(tmp_path: Path, topic: str, payload: bytes, mid: int, again: bool) -> None:
    names = _filled(tmp_path / "f")
    seen = Redelivered(tmp_path / "f")
    assert seen.name(topic, payload, mid, again) not in names
    assert seen.name(topic, payload, mid, again) not in names


def test_a_broker_that_uses_the_lowest_free_packet_id_is_not_believed() -> None:
    """There the same id and content may be a message whose first delivery was lost."""
    seen = Redelivered()
    for _ in range(IN_FLIGHT):
        for mid in (1, 2, 3):
            name = seen.name("t", b"1", mid, False)
    assert seen.name("t", b"1", 3, True) != name


def test_packet_ids_go_round() -> None:
    seen = Redelivered()
    mids = [(60_000 + 100 * n) % 65_535 + 1 for n in range(IN_FLIGHT + 1)]
    names = [seen.name("t", b"1", mid, False) for mid in mids]
    assert seen.name("t", b"1", mids[-1], True) == names[-1]


def test_a_new_session_begins_anew(tmp_path: Path) -> None:
    names = _filled(tmp_path / "f")
    seen = Redelivered(tmp_path / "f")
    seen.new_session()
    assert seen.name("t", b"1", 5, True) not in names
    seen.close()
    assert Redelivered(tmp_path / "f").name("t", b"1", 6, True) not in names


def test_after_a_power_cut_the_file_is_not_believed(tmp_path: Path) -> None:
    boot = tmp_path / "boot"
    boot.write_text("one\n")
    names = _filled(tmp_path / "f", boot=boot)
    assert Redelivered(tmp_path / "f", boot).name("t", b"1", 5, True) == names[4]
    boot.write_text("two\n")
    assert Redelivered(tmp_path / "f", boot).name("t", b"1", 5, True) not in names
    boot.unlink()
    assert Redelivered(tmp_path / "f", boot).name("t", b"1", 5, True) not in names


@pytest.mark.parametrize("left", [0, 30, 64, 65, 200, 1000])
def test_a_damaged_file_costs_names_and_nothing_else(tmp_path: Path, left: int) -> None:
    names = _filled(tmp_path / "f")
    whole = (tmp_path / "f").read_bytes()
    (tmp_path / "f").write_bytes(whole[:left])
    assert Redelivered(tmp_path / "f").name("t", b"1", 5, True) not in names
    (tmp_path / "f").unlink()
    (tmp_path / "f").mkdir()
    assert Redelivered(tmp_path / "f").name("t", b"1", 5, False)


@pytest.mark.skipif("mosquitto" not in kinds(), reason="the embedded broker repeats nothing")
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
async def test_a_message_whose_acknowledgement_was_lost_counts_once(broker: Broker, tmp_path: Path) -> None:
    """No ids, only the broker's own delivery; over a lost connection, and over a new daemon."""
    door = opened()
    async with Proxy(broker.config.port).listening() as proxy, DurableClient(broker.config, identifier="p") as plain:
        async with running(_behind(broker, proxy.port, tmp_path), door):
            for number in range(IN_FLIGHT + 5):
                await plain.publish("home/room/light", str(number % 3), qos=1)
            await until(lambda: len(door.kept) == IN_FLIGHT + 5)
            await _unacknowledged(plain, door, proxy)
            proxy.cut()
            await until(lambda: door.emitted >= len(door.kept) + 2)
            await _unacknowledged(plain, door, proxy)
            proxy.cut()
            before = door.emitted
        async with running(_behind(broker, proxy.port, tmp_path), door):
            await until(lambda: door.emitted >= before + 2)
    assert len(door.kept) == IN_FLIGHT + 5 + 2 * 2


async def _unacknowledged(plain: DurableClient, door: Door, proxy: Proxy) -> None:
    """Two more messages, alike, so that the acknowledgements of two do not arrive."""
    before, lost = len(door.kept), proxy.done["lose"]
    proxy.harm("lose", "up", PUBACK, 2)
    for _ in range(2):
        await plain.publish("home/room/light", "1", qos=1)
    await until(lambda: len(door.kept) == before + 2 and proxy.done["lose"] == lost + 2)


def _behind(broker: Broker, port: int, data: Path) -> Mqtt:
    plugin = made(broker, data)
    plugin.context = replace(plugin.context, broker=broker.config.model_copy(update={"port": port}))
    return plugin
