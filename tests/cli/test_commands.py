"""The command line as a program: quick to answer, one sentence when something is wrong, and honest about a daemon that is down."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from runtime.__main__ import sentence
from runtime.errors import Unavailable

PROGRAM = [sys.executable, "-m", "runtime"]
ISSUE = [
    "run",
    "demo",
    "backtest",
    "chat",
    "status",
    "feedback",
    "edit",
    "forget",
    "sources",
    "learn",
    "explain",
    "decisions",
    "adapters",
    "topics",
    "config",
    "doctor",
]


def corrigible(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": root, "HOME": str(cwd), "COLUMNS": "120", **environment}
    return subprocess.run([*PROGRAM, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def test_help_names_every_command(tmp_path: Path) -> None:
    answer = corrigible("--help", cwd=tmp_path)
    assert answer.returncode == 0
    assert [name for name in ISSUE if f" {name} " not in answer.stdout] == []


def test_help_loads_nothing_heavy() -> None:
    """That is what makes it quick; a time is not asserted."""
    code = (
        "import sys, runtime.cli.commands; heavy = {'torch', 'transformers', 'pydantic', 'starlette', 'uvicorn', 'httpx', 'numpy', 'msgspec'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "[]"


def test_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[learner]\nepoch = 3\n")
    answer = corrigible("status", cwd=tmp_path)
    assert answer.returncode == 1
    assert "'learner.epoch'; did you mean 'epochs'?" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_unknown_plugin_key_is_found_by_check(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[[plugin]]\nuse = "plugins.quiet_hours:QuietHours"\nstrat = "22:00"\n')
    answer = corrigible("config", "--check", cwd=tmp_path)
    assert answer.returncode == 1
    assert "unknown key 'strat'" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_missing_config_file_is_one_sentence(tmp_path: Path) -> None:
    answer = corrigible("run", "--config", "nowhere.toml", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert (
        answer.stderr
        == "corrigible: cannot read nowhere.toml: No such file or directory; give another file with --config\n"
    )


def test_environment_wins_over_the_file_and_secrets_stay_hidden(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[learner]\nepochs = 3\n[broker]\npassword = "tell-nobody"\n')
    answer = corrigible("config", cwd=tmp_path, CORRIGIBLE_LEARNER__EPOCHS="7")
    shown = tomllib.loads(answer.stdout)
    assert shown["learner"]["epochs"] == 7
    assert shown["broker"]["password"] == "***"


def test_reference_is_a_configuration_that_can_be_used(tmp_path: Path) -> None:
    answer = corrigible("config", "--reference", cwd=tmp_path)
    (tmp_path / "config.toml").write_text(answer.stdout)
    again = corrigible("config", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert tomllib.loads(again.stdout) == tomllib.loads(answer.stdout)


@pytest.mark.parametrize("words", [["chat", "hello"], ["learn"], ["approve", "cmd-1"]])
def test_what_needs_the_daemon_says_so(tmp_path: Path, words: list[str]) -> None:
    answer = corrigible(*words, cwd=tmp_path)
    assert answer.returncode == 1
    assert "daemon is not running; start it with `corrigible run`" in answer.stderr


def test_feedback_wants_exactly_one_judgement(tmp_path: Path) -> None:
    answer = corrigible("feedback", "d-1", "--accept", "--correct", "lamp off", cwd=tmp_path)
    assert answer.returncode == 1
    assert "exactly one" in answer.stderr


def test_reading_without_a_daemon_reads_the_journal(tmp_path: Path) -> None:
    assert json.loads(corrigible("decisions", "--json", cwd=tmp_path).stdout) == []
    status = json.loads(corrigible("status", "--json", cwd=tmp_path).stdout)
    assert (status["adapter"], status["pid"]) == ("base", None)
    assert "the daemon is not running" in corrigible("status", cwd=tmp_path).stdout
    unknown = corrigible("explain", "d-404", cwd=tmp_path)
    assert unknown.returncode == 1
    assert "there is no decision 'd-404'" in unknown.stderr


def test_sentence_finds_ours_in_a_group_of_errors() -> None:
    group = ExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("inner", [Unavailable("port 1 is in use")])])
    assert sentence(group) == "port 1 is in use"
    assert sentence(ValueError("x")).startswith("unexpected ValueError: x")
