"""Plugin loading: an entry of config.toml becomes an object, or one sentence says what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from runtime import plugins
from runtime.config import BrokerConfig
from runtime.errors import BadConfig
from runtime.roles import Context, Critic, Emit, Rule, Sensor

HERE = __name__


@dataclass
class Thermometer(Sensor):
    topic: str
    interval: float = 5.0
    rooms: list[str] = field(default_factory=list)

    async def sense(self, emit: Emit) -> None: ...


class NotADataclass(Sensor):
    async def sense(self, emit: Emit) -> None: ...


class NotAPlugin: ...


def load(tmp_path: Path, *entries: dict[str, Any]) -> list[Any]:
    return plugins.load(list(entries), Context("agent", tmp_path, BrokerConfig(), UTC))


def entry(**keys: Any) -> dict[str, Any]:
    return {"use": f"{HERE}:Thermometer", "topic": "hall/temperature", **keys}


def test_an_entry_becomes_an_object_with_its_context(tmp_path: Path) -> None:
    given = entry(interval=2, rooms=["hall"])
    (made,) = load(tmp_path, given)
    assert made == Thermometer("hall/temperature", 2.0, ["hall"])
    assert (made.name, made.context.data) == ("Thermometer", tmp_path)
    assert "use" in given, "the configuration stays as it was"
    assert plugins.roles_of(made) == ["Sensor"]
    assert plugins.of_role([made], Sensor) == [made]
    assert not plugins.of_role([made], Rule)
    assert not plugins.of_role([made], Critic)


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    (entry(intervall=2), "unknown key 'intervall'; did you mean 'interval'?"),
    (entry(xyzzy=2), "valid keys are interval, name, rooms, topic, use"),
    (entry(interval="often"), "interval: Expected `float`, got `str`"),
    (entry(rooms=["hall", 7]), "rooms"),
    ({"use": f"{HERE}:Thermometer"}, "the key 'topic' is missing"),
    ({"topic": "hall"}, "has no key 'use'"),
    ({"use": 7}, "has no key 'use'"),
    ({"use": f"{HERE}:NotAPlugin"}, "is not a plugin dataclass"),
    ({"use": f"{HERE}:NotADataclass"}, "is not a plugin dataclass"),
    ({"use": f"{HERE}:Thermometre"}, "did you mean 'Thermometer'?"),
    ({"use": "no_such_module_of_ours:Thermometer"}, "cannot import 'no_such_module_of_ours'"),
    ({"use": "no-such-entry-point"}, "no installed plugin is called 'no-such-entry-point'"),
]


@pytest.mark.parametrize(("wrong", "sentence"), PROBLEMS, ids=[sentence[:30] for _, sentence in PROBLEMS])
def test_what_is_wrong_is_said_with_the_number_of_the_table(
    tmp_path: Path, wrong: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadConfig) as caught:
        load(tmp_path, entry(), wrong)
    assert sentence in str(caught.value)
    assert "[[plugin]] number 2" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_of_a_name_are_refused_until_one_gets_another(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="two plugins are called 'Thermometer'"):
        load(tmp_path, entry(), entry())
    assert [made.name for made in load(tmp_path, entry(), entry(name="attic"))] == ["Thermometer", "attic"]


def test_an_installed_entry_point_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = EntryPoints([EntryPoint("thermometer", f"{HERE}:Thermometer", plugins.ENTRY_POINT_GROUP)])
    monkeypatch.setattr(plugins, "entry_points", lambda group: installed.select(group=group))
    (made,) = load(tmp_path, entry(use="thermometer"))
    assert type(made) is Thermometer
    with pytest.raises(BadConfig, match="did you mean 'thermometer'"):
        load(tmp_path, entry(use="termometer"))
