"""A command with the daemon down knows what isolated plugins offer, and starts none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime import app, config
from runtime.config import Config
from runtime.isolation.link import Link

EYE = {"use": "tests.isolation.honest:Everything", "name": "eye", "permissions": {"emit": ["*"], "actuators": ["lamp"]}}
NARROWED = dict(EYE, permissions={"emit": ["*"]})
STRANGER = dict(EYE, name="stranger")


def settings(data: Path, *plugins: dict[str, Any]) -> Config:
    return config.load(None, agent={"data": data}, broker={"mode": "none"}, plugin=plugins)


async def test_its_tools_are_known_without_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with app.opened(settings(tmp_path, EYE)):
        pass
    monkeypatch.setattr(Link, "open", None)  # whoever starts a process now fails
    async with app.offline(settings(tmp_path, EYE)) as control:
        assert list(await control.command("modes")()) == ["lamp"]
    for now in (NARROWED, STRANGER):  # what is not allowed any more, and what never lived
        async with app.offline(settings(tmp_path, now)) as control:
            assert await control.command("modes")() == {}
    async with app.offline(settings(tmp_path, EYE)) as control:
        assert list(await control.command("modes")()) == ["lamp"], "nothing was forgotten meanwhile"
