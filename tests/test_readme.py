"""The README tells the truth: its file map is the disk, its reference is the code, its plugin runs, its config is valid."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime import config, plugins
from runtime.errors import BadConfig
from runtime.messages import Action, Percept
from runtime.roles import Context, Rule
from tests.readme import ROOT, rewritten

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def context(tmp_path: Path) -> Context:
    return Context(agent="test", data=tmp_path, broker=config.BrokerConfig(mode="none"), zone=UTC)


def test_file_map_and_config_reference_follow_the_code() -> None:
    assert rewritten(README) == README, "run `python -m tests.readme`"


def test_shipped_config_is_valid(tmp_path: Path) -> None:
    loaded = config.load(ROOT / "config.toml")
    assert [plugin.name for plugin in plugins.load(loaded.plugin, context(tmp_path))]


def test_example_for_own_devices_is_valid(tmp_path: Path) -> None:
    example = next(block for block in blocks("toml") if "zigbee2mqtt" in block)
    path = tmp_path / "config.toml"
    path.write_text(example)
    loaded = config.load(path)
    assert [plugin.name for plugin in plugins.load(loaded.plugin, context(tmp_path))] == ["Mqtt", "Override"]
    assert tomllib.loads(example)["modes"]["kitchen_lamp"] == "confirm"


def test_plugin_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block for block in blocks("python") if "my_plugins" in block]
    assert len([line for line in source.splitlines() if line.strip()]) <= 22
    (tmp_path / "my_plugins.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("my_plugins")
    (rule,) = plugins.load([{"use": "my_plugins:NobodyHome", "spare": "hall_lamp"}], context(tmp_path))
    assert isinstance(rule, Rule)
    assert dataclasses.is_dataclass(rule)
    away = Percept(id="p", scope="hall", text="", at=0.0, fields={"house/presence": False})
    lamp = Action(tool="kitchen_lamp", arguments={"level": "ON"})
    assert rule.judge(away, lamp, datetime.now(UTC)) == "nobody is home"
    assert rule.judge(away, Action(tool="hall_lamp"), datetime.now(UTC)) is None
    with pytest.raises(BadConfig, match="did you mean 'spare'"):
        plugins.load([{"use": "my_plugins:NobodyHome", "spar": "x"}], context(tmp_path))
    sys.modules.pop("my_plugins")


def test_it_says_what_asyncio_mqtt_is_called_now() -> None:
    assert "aiomqtt, the present name of asyncio-mqtt" in README
