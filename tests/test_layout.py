"""The rules of the house, kept by reading the code: who may import what, and what every file must have."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = sorted(p for folder in ("runtime", "plugins") for p in (ROOT / folder).rglob("*.py"))
HEAVY = {
    "torch": ("runtime/policy/", "runtime/learning/"),
    "transformers": ("runtime/policy/", "runtime/learning/"),
    "peft": ("runtime/policy/", "runtime/learning/"),
    "sqlite3": ("runtime/journal/", "plugins/mqtt_store.py"),
    "aiosqlite": ("runtime/journal/",),
    "aiomqtt": ("plugins/mqtt",),
    "paho": ("plugins/mqtt",),
    "river": ("runtime/learning/drift.py",),
    "scipy": (),
}
FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py", "manager.py"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", CODE, ids=name)
def test_every_file_keeps_the_rules(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "a module opens with a sentence"
    assert path.name not in FORBIDDEN_NAMES
    for module in imports(path):
        top = module.split(".")[0]
        homes = HEAVY.get(top)
        assert homes is None or name(path).startswith(homes), f"{top} is imported only under {homes}"
        assert not (name(path).startswith("runtime/") and top == "plugins"), "runtime never imports plugins"
        assert top not in ("pickle", "shelve", "marshal", "dill")


STAGES = ("perception", "decision", "action")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_no_other_stage(stage: str) -> None:
    found = set(imports(ROOT / "runtime" / f"{stage}.py"))
    assert not found & {f"runtime.{other}" for other in STAGES if other != stage}


@pytest.mark.parametrize("module", ["runtime.app", "runtime.backtest", "plugins.mqtt", "plugins.house.demo"])
def test_the_daemon_loads_nothing_heavy(module: str) -> None:
    check = f"import sys, {module}; sys.exit(bool({{'torch', 'transformers', 'scipy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0


def test_nothing_that_can_carry_code_is_loaded() -> None:
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        for phrase in ("torch" + ".load(", "trust_remote" + "_code", "shell" + "=True", "yaml" + ".load("):
            assert phrase not in text, f"{name(path)} has {phrase}"
