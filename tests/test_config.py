"""config.toml: mistakes are named with what was meant, the environment wins, secrets stay secret."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import pytest

from runtime import config, plugins
from runtime.errors import BadConfig
from runtime.roles import Context


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[learner]\nepoch = 3", "unknown key 'learner.epoch'; did you mean 'epochs'"),
        ("[lerner]\n", "did you mean 'learner'"),
        ("[learner]\nepochs = 'many'", "learner.epochs"),
        ("[learner]\nlayers = 'bottom:3'", "learner.layers"),
        ("[learner\n", "not valid TOML"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(BadConfig, match=message) as caught:
        config.load(path)
    assert "\n" not in str(caught.value) or "TOML" in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot read"):
        config.load(tmp_path / "none.toml")


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[learner]\nepochs = 3")
    monkeypatch.setenv("CORRIGIBLE_LEARNER__EPOCHS", "7")
    monkeypatch.setenv("CORRIGIBLE_BROKER__PASSWORD", "a-canary")
    loaded = config.load(path)
    assert loaded.learner.epochs == 7
    assert "a-canary" not in repr(loaded)
    assert loaded.broker.password.get_secret_value() == "a-canary"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"use": "plugins.quiet_hours:QuietHours", "begn": "22:00"}, "did you mean 'begin'"),
        ({"use": "plugins.quiet_hours:QuietHour"}, "did you mean 'QuietHours'"),
        ({"use": "plugins.nowhere:Thing"}, "cannot import"),
        ({"use": "nobody"}, "no installed plugin is called 'nobody'"),
        ({"name": "x"}, "has no key 'use'"),
        ({"use": "plugins.simulated_home:SimulatedHome", "seed": "one"}, "seed"),
    ],
)
def test_a_plugin_entry_is_checked(tmp_path: Path, entry: dict[str, object], message: str) -> None:
    context = Context(agent="test", data=tmp_path, broker=config.BrokerConfig(mode="none"), zone=UTC)
    with pytest.raises(BadConfig, match=message):
        plugins.load([entry], context)


def test_two_plugins_need_two_names(tmp_path: Path) -> None:
    context = Context(agent="test", data=tmp_path, broker=config.BrokerConfig(mode="none"), zone=UTC)
    twice = [{"use": "plugins.quiet_hours:QuietHours"}] * 2
    with pytest.raises(BadConfig, match="two plugins are called"):
        plugins.load(twice, context)
    assert len(plugins.load([*twice[:1], {**twice[0], "name": "other"}], context)) == 2


@pytest.mark.parametrize("name", ["PASSWORD__X", "USERNAME__TOKEN"])
def test_no_error_repeats_a_secret(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"CORRIGIBLE_BROKER__{name}", "canary")
    with pytest.raises(BadConfig) as error:
        config.load(None)
    assert "canary" not in str(error.value)


def test_a_variable_that_is_no_json_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRIGIBLE_BROKER", '{"password": "canary"')
    with pytest.raises(BadConfig, match=r"the environment: .*broker") as error:
        config.load(None)
    assert "canary" not in str(error.value)
