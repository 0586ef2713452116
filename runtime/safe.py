"""Safe mode: what is left of a configuration when the last starts did not live, or a person wants to look first.

It keeps what is needed to see and to steer: the page and the command line, MQTT, chat, quiet hours, rules and the table of exact
corrections. There is no model, no learner, no other plugin and nothing that is not ours. What the table does not know is
`nothing`. A plugin that is left out might have been a rule, and one that is not there cannot say no: then every actuator is only
observed, unless a person switches it in safe mode itself.
"""

from __future__ import annotations

from typing import Any

from runtime import plugins
from runtime.config import Config
from runtime.errors import BadConfig

KEPT = ("plugins.mqtt:Mqtt", "plugins.chat:Chat", "plugins.quiet_hours:QuietHours")
HARMLESS = ("plugins.override:Override", "plugins.replay:Replay", "plugins.simulated_home:SimulatedHome")  # no rules


def reduced(config: Config) -> tuple[Config, bool]:
    """The configuration of safe mode, and whether a rule may be missing in it."""
    entries = [(entry, _target(entry)) for entry in config.plugin]
    kept = [entry for entry, target in entries if target in KEPT]
    rules_missing = any(target not in (*KEPT, *HARMLESS) for _, target in entries)
    changes: dict[str, Any] = {
        "plugin": kept,
        "learner": config.learner.model_copy(update={"enabled": False}),
    }
    if rules_missing:
        changes["modes"] = {"*": "observe"}
    return config.model_copy(update=changes), rules_missing


def _target(entry: dict[str, Any]) -> str:
    try:
        return plugins.target(str(entry.get("use", "")))
    except BadConfig:
        return ""  # what cannot be found is not needed either
