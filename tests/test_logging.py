"""Log lines: JSON for machines, one line without a stack for people, and no secrets in either."""

from __future__ import annotations

import json
import logging as standard
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from runtime import logging
from runtime.config import LogConfig


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = standard.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_json_line_holds_event_logger_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logging.setup(LogConfig(format="json"))
    structlog.get_logger("app").info("ready", adapter="base", token="tell-nobody", text="x" * 5000)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["logger"], line["level"], line["adapter"]) == ("ready", "app", "info", "base")
    assert line["token"] == "***"
    assert line["text"].endswith("(5000 characters)")


def test_text_says_an_error_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logging.setup(LogConfig(format="text"))
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        structlog.get_logger("app").exception("failed")
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in shown
    assert shown.count("\n") == 1


def test_level_holds_for_libraries_too(capsys: pytest.CaptureFixture[str]) -> None:
    logging.setup(LogConfig(format="json", level="warning"))
    structlog.get_logger("app").info("quiet")
    standard.getLogger("uvicorn.error").info("quiet")
    standard.getLogger("asyncio").error("loud")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("level", ["debug", "info"])
def test_a_secret_is_in_no_line_however_it_comes(capsys: pytest.CaptureFixture[str], form: Any, level: Any) -> None:
    logging.setup(LogConfig(format=form, level=level), ["canary-1"])
    log = structlog.get_logger("app")
    log.info(
        "given",
        api_key="canary-2",
        broker_password="canary-2",
        config={"password": "canary-2", "hosts": ["x:canary-1"]},
    )
    log.info("mqtt://user:canary-2@host/ canary-1", url="mqtt://user:canary-2@host/")
    try:
        raise ValueError("login with canary-1 refused at tcp://u:canary-2@h")
    except ValueError:
        log.exception("failed")
    standard.getLogger("uvicorn.error").error("canary-1 and %s", "canary-1")
    shown = capsys.readouterr().err
    assert "canary" not in shown
    assert "refused" in shown
