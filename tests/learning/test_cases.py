"""A file of what must never go wrong: read whole or refused with a sentence, and every broken case named."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import BadConfig
from runtime.learning.cases import Case, broken, read

GOOD = """
[[case]]
scope = "kitchen"
text = "smoke"
required = "siren on"
[[case]]
scope = "kitchen"
text = "nobody is home"
forbidden = ["oven on", "lamp bright"]
"""


def file(folder: Path, text: str) -> str:
    path = folder / "cases.toml"
    path.write_text(text)
    return str(path)


def test_read(tmp_path: Path) -> None:
    assert read(file(tmp_path, GOOD)) == (
        Case(scope="kitchen", text="smoke", required="siren on"),
        Case(scope="kitchen", text="nobody is home", forbidden=("oven on", "lamp bright")),
    )
    assert read("") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no [[case]]"),
        ("case = 3", "has no [[case]]"),
        ("[[cases]]\ntext = 'a'", "has no [[case]]"),
        ("[[case", "cannot be read"),
        ("[[case]]\nscope = 'a'\ntext = 'b'", "case 1 says neither"),
        ("[[case]]\nscope = 'a'\ntext = 'b'\nrequire = 'c'", "case 1: "),
        ("[[case]]\nscope = 'a'\nrequired = 'c'", "case 1: "),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(BadConfig, match=r"\[gate\] must_pass: .*") as caught:
        read(file(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"must_pass: .*none\.toml cannot be read"):
        read(str(tmp_path / "none.toml"))


def test_broken_cases_are_named(tmp_path: Path) -> None:
    cases = read(file(tmp_path, GOOD))
    assert not list(broken(cases, lambda scope, text: "siren on" if text == "smoke" else "nothing"))
    assert list(broken(cases, lambda scope, text: "oven on")) == [
        "kitchen: 'smoke' -> oven on, where siren on is required",
        "kitchen: 'nobody is home' -> oven on, which is forbidden",
    ]
    assert list(broken(cases[:1], lambda scope, text: None)) == ["kitchen: 'smoke' (there is no such scope)"]
