"""A command with the daemon down knows what isolated plugins offer, and starts none of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from runtime import app, config
from runtime.catalogue import Tool
from runtime.config import Config
from runtime.isolation import recall
from runtime.isolation.link import Link
from runtime.isolation.remote import Remote

EYE = {"use": "tests.isolation.honest:Everything", "name": "eye", "permissions": {"emit": ["*"], "actuators": ["lamp"]}}
OTHER_CLASS = dict(EYE, use="tests.isolation.honest:Nothing")
NARROWED = dict(EYE, permissions={"emit": ["*"]})
STRANGER = dict(EYE, name="stranger")


def settings(data: Path, *plugins: dict[str, Any]) -> Config:
    return config.load(None, agent={"data": data}, broker={"mode": "none"}, plugin=plugins)


async def test_its_tools_are_known_without_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with app.opened(settings(tmp_path, EYE)):
        pass
    async with app.opened(settings(tmp_path)):  # as safe mode does
        pass
    monkeypatch.setattr(Link, "open", None)  # whoever starts a process now fails
    async with app.offline(settings(tmp_path, EYE)) as control:
        assert list(await control.command("modes")()) == ["lamp"]
    for now in (NARROWED, STRANGER, OTHER_CLASS):  # what is not allowed any more, and what never lived
        async with app.offline(settings(tmp_path, now)) as control:
            assert await control.command("modes")() == {}


async def test_one_that_could_not_be_had_is_not_remembered_as_it_was(tmp_path: Path) -> None:
    async with app.opened(settings(tmp_path, EYE)):
        pass
    async with app.opened(settings(tmp_path, dict(EYE, hov="x"))):  # a key that it has not
        pass
    async with app.offline(settings(tmp_path, EYE)) as control:
        assert await control.command("modes")() == {}


@pytest.mark.parametrize("schema", [{"enum": ["on"], "labels": {1: "low"}}, {"type": "number", "maximum": math.inf}])
async def test_what_json_cannot_carry_is_not_kept_and_harms_nobody(tmp_path: Path, schema: dict[str, Any]) -> None:
    async with app.opened(settings(tmp_path, EYE)) as daemon:
        (eye,) = (plugin for plugin in daemon.plugins if isinstance(plugin, Remote))
        assert eye.said is not None
        eye.adopt(replace(eye.said, tools={"hall": (Tool(name="lamp", arguments={"level": schema}),)}))
        await recall.keep(daemon.journal, [eye])
        assert await daemon.journal.metadata(recall.KEY) == {}
