"""The console's routes: what they ask of the control, and how they refuse what cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.console import routes
from tests.console.conftest import Running

GETS = [
    "status",
    "decisions",
    "decisions/d-1",
    "decisions/d-1/mattered",
    "modes",
    "held",
    "uncertain",
    "cycles",
    "adapters",
    "adapters/base",
    "adapters/base/changes",
    "curve",
    "satisfaction",
    "satisfaction?days=2",
    "topics",
]


@pytest.mark.parametrize("path", GETS)
async def test_everything_that_may_be_read_is_json(console: Running, path: str) -> None:
    async with console.client() as client:
        answer = await client.get(f"/api/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()


POSTS: list[tuple[str, dict[str, Any], tuple[Any, ...] | None]] = [
    (
        "feedback",
        {"decision_id": "d-1", "kind": "correction", "action": "lamp dim"},
        ("feedback", "d-1", "correction", "lamp dim"),
    ),
    ("modes", {"actuator": "lamp", "mode": "act"}, ("set_mode", "lamp", "act")),
    ("approve", {"command_id": "cmd-1", "yes": False}, ("approve", "cmd-1", False)),
    ("resolve", {"command_id": "cmd-2", "done": True}, ("resolve", "cmd-2", True)),
    ("backup", {"to": "/tmp/b"}, ("backup", "/tmp/b")),
    ("table", {"on": False}, ("set_table", False)),
    ("memory", {"on": False}, ("set_memory", False)),
    ("say", {"text": "今天天气如何？"}, None),
    ("learn", {}, None),
    ("decisions/d-1/prove", {}, ("prove", "d-1")),
    ("rollback", {}, None),
    ("adapters/base/promote", {}, None),
]


@pytest.mark.parametrize(("path", "body", "call"), POSTS)
async def test_posts_reach_the_control(
    console: Running, path: str, body: dict[str, Any], call: tuple[Any, ...] | None
) -> None:
    async with console.client() as client:
        answer = await client.post(f"/api/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert console.control.calls == ([call] if call else [])


BAD: list[tuple[str, bytes, int, str]] = [
    ("feedback", b'{"decision_id": "d-9", "kind": "correction", "action": "x"}', 404, "no decision 'd-9'"),
    ("feedback", b'{"decision_id": "d-1", "kind": "praise"}', 400, "praise"),
    ("feedback", b'{"decision_id": "d-1", "kind": "acceptance", "wat": 1}', 400, "wat"),
    ("feedback", b'{"decision_id": "d-1", "kind": "rating", "rating": NaN}', 400, "cannot be used"),
    ("kill", b'{"on": "yes"}', 400, "bool"),
    ("kill", b"\xff\xfe", 400, "cannot be used"),
    ("kill", b"[" * 60_000, 400, "cannot be used"),
    ("kill", b" " * (routes.BODY_LIMIT + 1), 413, "larger"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), BAD)
async def test_bad_input_is_one_sentence(console: Running, path: str, body: bytes, status: int, words: str) -> None:
    async with console.client() as client:
        answer = await client.post(f"/api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert console.control.calls == []


async def test_form_posts_are_refused(console: Running) -> None:
    """A web site can post a form without asking, JSON it cannot."""
    async with console.client() as client:
        assert (await client.post("/api/kill", data={"on": "true"})).status_code == 415


async def test_failure_inside_shows_no_insides(console: Running) -> None:
    console.control.broken = True
    async with console.client() as client:
        answer = await client.get("/api/status")
    assert answer.status_code == 500
    assert "secret" not in answer.text


async def test_limits_of_lists_are_checked(console: Running) -> None:
    async with console.client() as client:
        assert (await client.get("/api/decisions?limit=7&before=d-3&scope=hall")).status_code == 200
        for limit in ("0", "-1", "x", "501", "9" * 400, "²"):
            assert (await client.get("/api/decisions", params={"limit": limit})).status_code == 400
    assert console.control.calls == [("decisions", 7, "d-3", "hall")]


async def test_unknown_address_and_method(console: Running) -> None:
    async with console.client() as client:
        assert "nothing at this address" in (await client.get("/api/wat")).json()["error"]
        assert (await client.get("/api/kill")).status_code == 405


async def test_days_are_checked(console: Running) -> None:
    async with console.client() as client:
        assert (await client.get("/api/satisfaction?days=0.5")).json()["days"] == 0.5
        answer = await client.get("/api/satisfaction?days=week")
    assert (answer.status_code, answer.json()["error"]) == (400, "days is a number above 0, not 'week'")


async def test_figures_say_how_content_people_are(console: Running) -> None:
    async with console.client() as client:
        text = (await client.get("/metrics")).text
    assert "corrigible_satisfaction_override_rate 0.2\n" in text
    assert "corrigible_satisfaction_repeated_contacts 0.2\n" in text
