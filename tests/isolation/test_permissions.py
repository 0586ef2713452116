"""The manifest: what may stand in it, who lives apart, and what is said where the machine cannot keep a promise."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import plugins
from runtime.config import BrokerConfig
from runtime.errors import BadConfig
from runtime.isolation import landlock, seccomp
from runtime.isolation.loading import checked, introduced, remotes
from runtime.isolation.permissions import Permissions, read
from runtime.isolation.remote import sound
from runtime.messages import Action, Feedback, Observation, Percept
from runtime.roles import Context, Rule, Situation, answer
from tests.isolation.conftest import Opened

WRONG: list[tuple[object, str]] = [
    ("all", "permissions is a table"),
    ({"emmit": ["x"]}, "unknown permission 'emmit'; did you mean 'emit'?"),
    ({"emit": "hall"}, "Expected `array`, got `str` - at `$.emit`"),
    ({"memory": 1}, "memory"),
    ({"connect": [0]}, "connect"),
    ({"rate": 0}, "rate"),
    ({"roles": ["Rules"]}, "there is no role 'Rules'; did you mean 'Rule'?"),
]


@pytest.mark.parametrize(("table", "sentence"), WRONG, ids=[sentence[:30] for _, sentence in WRONG])
async def test_a_wrong_table_is_one_sentence_and_no_daemon(tmp_path: Path, table: object, sentence: str) -> None:
    context = Context("test", tmp_path, BrokerConfig(mode="none"), UTC)
    with pytest.raises(BadConfig) as caught:
        await introduced([{"use": "my_plugins:Mine", "permissions": table}], context)
    assert sentence in str(caught.value)
    assert "[[plugin]] number 1" in str(caught.value)


TEXTS = st.text(max_size=12) | st.sampled_from(["*", "~", "~nobody-here", "\0", "/", "..", "hall/*", "Rule", "root"])
NUMBERS = st.integers() | st.floats() | st.integers(0, 70_000)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(TEXTS, some, max_size=3),
    max_leaves=5,
)
OF_ITS_KIND: dict[type, st.SearchStrategy[object]] = {
    list: st.lists(TEXTS, max_size=3) | st.lists(NUMBERS, max_size=3), bool: st.booleans(), int: NUMBERS, float: NUMBERS,
    str: TEXTS,
}  # fmt: skip
LIKELY: dict[str, st.SearchStrategy[object]] = {
    name: OF_ITS_KIND[type(value)] for name, value in msgspec.structs.asdict(Permissions()).items()
}
ONE = st.sampled_from(sorted(LIKELY)).flatmap(lambda name: st.fixed_dictionaries({name: LIKELY[name]}))
TABLES = ONE | st.fixed_dictionaries({}, optional=LIKELY) | st.dictionaries(TEXTS, ANYTHING, max_size=3) | ANYTHING


@settings(max_examples=500, deadline=None)
@given(TABLES)
def test_whatever_stands_in_a_table_it_is_a_manifest_or_a_sentence(nowhere: Context, table: object) -> None:
    """And every manifest is one that the kernel can be told."""
    refused: list[str] = []
    try:
        (remote,) = remotes([{"use": "my_plugins:Mine", "permissions": table}], nowhere).values()
    except BadConfig as error:
        refused.append(str(error))
    assert [said for said in refused if not said.isprintable() or len(said) > 500] == []
    if refused:
        return
    may = remote._setup.confinement
    assert all(0 <= limit < 2**62 for limit in (may.memory, may.files, may.processes, may.cpu, may.disk))
    assert all(Path(path).is_absolute() for path in (*may.read, *may.write))


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return Context("test", tmp_path_factory.mktemp("data"), BrokerConfig(mode="none"), UTC)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", ".hidden", "x" * 65, "a b", "né"])
async def test_a_name_cannot_leave_its_directory(tmp_path: Path, name: str) -> None:
    context = Context("test", tmp_path, BrokerConfig(mode="none"), UTC)
    with pytest.raises(BadConfig, match="cannot be the name of an isolated plugin"):
        await introduced([{"use": "my_plugins:", "name": name, "isolate": True}], context)


APART: list[tuple[dict[str, Any], bool]] = [
    ({"use": "plugins.chat:Chat"}, False),
    ({"use": "chat"}, False),
    ({"use": "plugins.chat:Chat", "isolate": True}, True),
    ({"use": "my_plugins:Mine"}, True),
    ({"use": "pluginsx.chat:Chat"}, True),
    ({"use": "my_plugins:Mine", "isolate": False}, False),
]


@pytest.mark.parametrize(("entry", "apart"), APART)
def test_who_is_not_ours_lives_apart(entry: dict[str, Any], apart: bool) -> None:
    assert plugins.isolated(entry) is apart


async def test_one_of_ours_works_apart_too(house: Opened) -> None:
    async with house({"use": "plugins.quiet_hours:QuietHours", "begin": "20:00", "end": "23:00"}) as found:
        rule = found.plugins["QuietHours"]
        assert isinstance(rule, Rule)
        percept = Percept(id="pc", scope="hall", text="", at=1.0)
        reason = await answer(rule.judge(percept, Action(tool="lamp"), datetime(2026, 3, 1, 12, 0, tzinfo=UTC)))
        assert reason == "quiet hours from 20:00 to 23:00", "it is nine in the evening in this house"


async def test_a_check_imports_nothing_here_and_says_what_is_wrong(tmp_path: Path) -> None:
    context = Context("test", tmp_path, BrokerConfig(mode="none"), UTC)
    with pytest.raises(BadConfig, match="plugin 'Never' cannot be used: SystemExit"):
        await checked([{"use": "tests.isolation.unimportable:Never"}], context)


def test_what_is_allowed_is_allowed() -> None:
    may = Permissions(emit=["hall/*"], feedback=True, speech=True, scopes=["hall"])
    good: list[Observation | Feedback | Situation] = [
        Observation(id="o", topic="hall/light", payload=b"1", at=1.0),
        Feedback(id="f", decision_id="d", kind="acceptance", source="x", at=1.0),
        Situation(scope="hall", kind="speech", says="hello"),
    ]
    assert [may.wrong(message) for message in good] == [None] * 3
    assert "no kind" in str(may.wrong(Situation(scope="hall", kind="dream")))


@given(st.text(max_size=40))
def test_by_default_nothing_may_be_said(topic: str) -> None:
    assert read({}, "here").wrong(Observation(id="o", topic=topic, payload=b"", at=1.0)) is not None


@given(st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5)))
def test_what_json_carries_is_sound(arguments: dict[str, Any]) -> None:
    assert sound(Feedback(id="f", decision_id="d", kind="correction", source="x", at=1.0, evidence=arguments))


@pytest.mark.parametrize("value", [float("nan"), datetime(2026, 1, 1, tzinfo=UTC), b"bytes", "\ud800"])
def test_what_json_does_not_carry_is_not(value: object) -> None:
    assert not sound(Feedback(id="f", decision_id="d", kind="correction", source="x", at=1.0, evidence={"a": value}))


def test_what_a_kernel_lacks_is_said() -> None:
    assert "files are not closed" in landlock.missing(0)[0]
    assert [line.split(":")[0] for line in landlock.missing(3)] == ["Landlock 3", "Landlock 3"]
    assert landlock.missing(7) == []


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
@pytest.mark.parametrize("processes", [True, False])
@pytest.mark.parametrize("sockets", ["none", "tcp", "any"])
def test_the_filter_jumps_nowhere_outside_itself(machine: str, processes: bool, sockets: str) -> None:
    code = seccomp.program(machine, processes=processes, sockets=sockets)
    for place, (_, yes, no, _) in enumerate(code):
        assert place + 1 + max(yes, no) < len(code) or place == len(code) - 1
    assert code[-1] == (seccomp.RETURN, 0, 0, seccomp.ALLOW)
