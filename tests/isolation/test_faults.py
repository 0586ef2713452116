"""Plugin faults: each happens for real in a process of its own, is contained, and a neighbour goes on as if nothing were."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime import supervision
from runtime.errors import Unavailable
from runtime.isolation import landlock, remote, seccomp
from runtime.messages import Action, Command, Decision, Observation, Percept
from runtime.roles import Actuator, Critic, Perceiver, Rule, World, answer
from tests.isolation.conftest import Opened
from tests.isolation.houses import House
from tests.isolation.test_roles import EVERYTHING, ON, command

ROOT = os.geteuid() == 0
LOCKED = landlock.version() > 0
FILTERED = platform.machine() in seccomp.ARCHITECTURES
SECRET = "CORRIGIBLE_BROKER__PASSWORD"
MAY = {"emit": ["hall/*"], "patience": 3.0}
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Fault:
    """One way to go wrong and what must become of it."""

    how: str
    state: str = "quarantined"
    error: str = ""  # part of what the status says; `|` parts what is as good
    permissions: dict[str, Any] = field(default_factory=dict)
    needs: tuple[bool, str] = (True, "")


ENDING = [
    Fault("raise", error="ValueError: it is broken"),
    Fault("return early", state="finished"),
    Fault("exit", error="exited with code 3"),
    Fault("exit at once", error="exited with code 7"),
    Fault("kill -9 itself", error="killed by SIGKILL"),
    Fault("crash", error="killed by SIGSEGV"),
    Fault("block", error="did not answer within 3 s (Ping)"),
    Fault("spin", error="did not answer within 3 s (Ping)"),
    Fault("leak memory", error="MemoryError", permissions={"memory": 256}),
    Fault("leak descriptors", error="Too many open files", permissions={"files": 32}),
    Fault("fork bomb", error="PermissionError", needs=(FILTERED, "no seccomp filter for this machine")),
    Fault(
        # the limit stops it; if not before, then the answers of those that were forked and share its pipe
        "fork bomb",
        error="Resource temporarily unavailable|an answer that nobody asked for",
        permissions={"processes": 8},
        needs=(ROOT, "needs root"),
    ),
    Fault("thread bomb", error="can't start new thread", needs=(ROOT, "needs root")),
    Fault("flood past the window", error="rejected within a minute"),
    Fault("garbage", error="rejected within a minute"),
    Fault("huge frame", error="a frame of 4294967295 bytes"),
    Fault("wrong types", error="rejected within a minute"),
    Fault("deep nesting", error="rejected within a minute"),
    Fault("answer unasked", error="rejected within a minute"),
    Fault("foreign topic", error="'home/vault/door' is not in its permissions.emit"),
    Fault("false feedback", error="it has no permissions.feedback"),
    Fault("from the future", error="an observation from the future"),
    Fault("hang in start", error="did not answer within 2 s (Start)", permissions={"act": 2.0}),
]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF", 0.0)
    monkeypatch.setattr(supervision, "INTENSITY", 2)


def faulty(how: str, target: str = "", **permissions: Any) -> dict[str, Any]:
    entry = {"use": "tests.isolation.faulty:Faulty", "name": "faulty", "how": how, "target": target}
    return {**entry, "permissions": {**MAY, **permissions}}


async def neighbour_works(found: House) -> None:
    """The honest one is asked, and answers."""
    assert len(await found.hears(4, "all")) == 4
    plugin = found.plugins["all"]
    assert isinstance(plugin, Actuator)
    assert (await plugin.act(command(ON))).status == "applied"
    assert (found.children["all"].state, found.children["all"].restarts) == ("running", 0)


@pytest.mark.parametrize("fault", ENDING, ids=lambda fault: f"{fault.how} {fault.permissions or ''}".strip())
async def test_what_goes_wrong_ends_its_own_process_only(house: Opened, fault: Fault) -> None:
    if not fault.needs[0]:
        pytest.skip(fault.needs[1])
    async with house(EVERYTHING, faulty(fault.how, **fault.permissions)) as found:
        await found.hears(4, "all")
        child = await found.becomes("faulty", fault.state)
        assert any(error in child.error for error in fault.error.split("|"))
        assert found.plugins["faulty"].pid is None, "nothing is left of it"
        assert not [said for said in found.of("faulty") if "vault" in getattr(said, "topic", "")]
        await neighbour_works(found)


FORBIDDEN = [
    ("read", "/etc/passwd", "PermissionError"),
    ("read", "{data}/control.token", "PermissionError"),
    ("read", "/proc/1/environ", "PermissionError"),
    ("read", "{data}/plugins/all/diary", "PermissionError"),
    ("write", "{data}/journal.db", "PermissionError"),
    ("write", "/tmp/faulty-was-here", "PermissionError"),
    ("write", "/usr/lib/faulty-was-here", "PermissionError"),
    ("write", "{data}/plugins/faulty/own", "done: 10"),
]


@pytest.mark.skipif(not LOCKED, reason="this kernel has no Landlock")
@pytest.mark.parametrize(
    ("how", "target", "result"), FORBIDDEN, ids=[f"{how} {target}" for how, target, _ in FORBIDDEN]
)
async def test_files_are_closed_to_it(house: Opened, tmp_path: Path, how: str, target: str, result: str) -> None:
    data = tmp_path / "data"
    (data / "plugins" / "all").mkdir(parents=True)
    for name in ("control.token", "journal.db", "plugins/all/diary"):
        (data / name).write_text("a secret")
        (data / name).chmod(0o666)
    async with house(faulty(how, target.format(data=data))) as found:
        assert await attempt(found) == result
    assert (data / "journal.db").read_text() == "a secret"
    assert not Path("/tmp/faulty-was-here").exists()


@pytest.mark.skipif(not LOCKED, reason="this kernel has no Landlock")
async def test_what_the_manifest_allows_it_gets(house: Opened, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("milk, bread")
    notes.chmod(0o644)
    async with house(faulty("read", str(notes), read=[str(notes)])) as found:
        assert await attempt(found) == "done: 'milk, bread'"
    async with house(faulty("write", str(notes), read=[str(notes)])) as found:
        assert await attempt(found) == "PermissionError"


@pytest.mark.skipif(not FILTERED, reason="no seccomp filter for this machine")
@pytest.mark.parametrize("allowed", ["nothing", "another port", "this port", "network"])
async def test_the_network_is_closed_to_it(house: Opened, allowed: str) -> None:
    if allowed == "another port" and landlock.version() < 4:
        pytest.skip("this kernel's Landlock knows no ports")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        other = {"nothing": {}, "another port": {"connect": [1]}, "this port": {"connect": [port]}}
        may: dict[str, Any] = other.get(allowed, {"network": True})
        async with house(faulty("connect", str(port), **may)) as found:
            said = await attempt(found)
            assert said.startswith("done") == (allowed in ("this port", "network")), said


async def test_it_cannot_reach_the_daemon(house: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "hunter2")
    async with house(EVERYTHING, faulty("look for secrets")) as found:
        assert await attempt(found) == "done: []"
        await neighbour_works(found)


@pytest.mark.skipif(not (ROOT or landlock.version() >= 6), reason="needs root, or a Landlock that knows signals")
async def test_it_cannot_end_the_daemon(house: Opened) -> None:
    async with house(EVERYTHING, faulty("kill the daemon")) as found:
        assert await attempt(found) == "PermissionError"
        await neighbour_works(found)


async def attempt(found: House) -> str:
    (said,) = await found.hears(1, "faulty")
    assert isinstance(said, Observation)
    return str(msgspec.json.decode(said.payload))


async def test_a_flood_is_slowed_down_and_nothing_is_lost(house: Opened) -> None:
    async with house(EVERYTHING, faulty("flood", rate=200.0)) as found:
        said = await found.hears(300, "faulty")
        values = [int(message.payload) for message in said if isinstance(message, Observation)]
        assert values == [*range(100), *range(100), *range(100)]
        assert (found.plugins["faulty"].shed, found.plugins["faulty"].rejected) == (0, 0)
        await neighbour_works(found)


async def test_what_is_beyond_the_window_is_shed_and_counted(house: Opened) -> None:
    async with house(faulty("flood past the window", rate=1.0)) as found:
        await found.becomes("faulty", "quarantined")
        assert found.plugins["faulty"].shed >= 10


async def test_megabytes_of_print_are_dropped_with_their_number(
    house: Opened, capfd: pytest.CaptureFixture[str]
) -> None:
    async with house(EVERYTHING, faulty("print megabytes", patience=20.0)) as found:
        assert await attempt(found) == "printed"
        await neighbour_works(found)
    written = capfd.readouterr().out
    assert "lines_dropped" in written
    assert 0 < len(written) < 200_000, "of four megabytes"
    assert "\x1b[31my" not in written, "it moves nobody's cursor"


async def test_one_that_hangs_in_stop_is_ended(house: Opened) -> None:
    async with house(EVERYTHING, faulty("hang in stop")) as found:
        assert await attempt(found) == "there"
        found.tasks["faulty"].cancel()
        await asyncio.gather(found.tasks["faulty"], return_exceptions=True)
        assert found.plugins["faulty"].pid is None
        await neighbour_works(found)


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"use": "tests.isolation.unimportable:Never"}, "SystemExit: this package needs another one"),
    ({"use": "no_such_module_of_ours:Never"}, "cannot import 'no_such_module_of_ours'"),
    ({"use": "tests.isolation.faulty:Faulty", "hov": "raise"}, "unknown key 'hov'; did you mean 'how'?"),
    ({"use": "tests.isolation.faulty:Faulty", "how": "raise when built"}, "OSError: no such bus"),
    ({"use": "tests.isolation.faulty:Liar", "how": "steal an actuator"}, "it offers the actuator 'vault_door'"),
    (
        {"use": "tests.isolation.faulty:Faulty", "how": "raise", "permissions": {"roles": ["Rule"]}},
        "its permissions.roles say",
    ),
]


@pytest.mark.parametrize(("entry", "reason"), UNUSABLE, ids=[reason[:30] for _, reason in UNUSABLE])
async def test_one_that_cannot_be_used_is_set_aside_with_its_reason(
    house: Opened, entry: dict[str, Any], reason: str
) -> None:
    async with house(EVERYTHING, {**entry, "name": "faulty"}) as found:
        child = await found.becomes("faulty", "quarantined")
        assert reason in child.error
        await neighbour_works(found)


async def test_a_rule_that_cannot_be_used_says_no_to_everything(house: Opened) -> None:
    entry = {"use": "no_such_module_of_ours:Never", "name": "faulty", "permissions": {"roles": ["Rule"]}}
    async with house(entry) as found:
        rule = found.plugins["faulty"]
        assert isinstance(rule, Rule)
        with pytest.raises(Unavailable, match="is not running"):
            await answer(rule.judge(Percept(id="pc", scope="hall", text="", at=1.0), ON, NOW))


async def test_lies_are_not_believed(house: Opened) -> None:
    entry = {"use": "tests.isolation.faulty:Liar", "how": "lie", "name": "faulty"}
    async with house(EVERYTHING, {**entry, "permissions": {"actuators": ["porch"], "scopes": ["hall"]}}) as found:
        liar = found.plugins["faulty"]
        percept = Percept(id="pc", scope="hall", text="", at=1.0)
        assert isinstance(liar, Perceiver)
        world = World({}, NOW)
        assert list(await answer(liar.perceive(world, Observation(id="o", topic="t", payload=b"1", at=1.0)))) == []
        assert isinstance(liar, Rule)
        with pytest.raises(Unavailable):
            await answer(liar.judge(percept, ON, NOW))
        assert isinstance(liar, Actuator)
        with pytest.raises(Unavailable, match="another command's outcome"):
            await liar.act(command(ON))
        assert isinstance(liar, Critic)
        decision = Decision(
            id="dc-1", percept_id="pc-1", scope="hall", actions=(ON,), by="table", adapter="base", p_model=None,
            p_behaviour=1.0, at=1.0,
        )  # fmt: skip
        assert list(await answer(liar.criticise(decision))) == []
        assert liar.rejected == 4
        await found.hears(4, "all")
        await neighbour_works(found)


async def test_one_that_everybody_waits_for_again_and_again_is_set_aside(
    house: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SLOW", 0.02)  # of its three seconds
    entry = {"use": "tests.isolation.faulty:Liar", "how": "slow", "name": "faulty"}
    async with house(EVERYTHING, {**entry, "permissions": {**MAY, "actuators": ["porch"], "observe": ["*"]}}) as found:
        plugin = found.plugins["faulty"]
        assert isinstance(plugin, Perceiver)
        for number in range(remote.REJECTIONS):
            seen = Observation(id=f"o{number}", topic="t", payload=b"1", at=1.0)
            assert list(await answer(plugin.perceive(World({}, NOW), seen))) == []
        await found.tasks["faulty"]
        assert found.children["faulty"].state == "quarantined"
        assert "everybody waited" in str(found.children["faulty"].error)
        await neighbour_works(found)


async def test_a_command_that_is_never_answered_ends_the_process(house: Opened) -> None:
    entry = {"use": "tests.isolation.faulty:Liar", "how": "never answer", "name": "faulty"}
    async with house(EVERYTHING, {**entry, "permissions": {"actuators": ["porch"], "act": 1.0}}) as found:
        plugin = found.plugins["faulty"]
        assert isinstance(plugin, Actuator)
        for _ in range(2):
            given = Command(
                id="cm", decision_id="dc", actuator="porch", action=Action(tool="porch"), expires_at=9.0, at=1.0
            )
            with pytest.raises(Unavailable, match=r"did not answer within 1 s \(Act\)|is not running"):
                await plugin.act(given)
        await neighbour_works(found)
