"""Frozen states on disk: found again, bounded, and thrown away when they are not what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from runtime.learning.states import States

PREFIX = (1, 2)


def filled(directory: Path, rows: range, limit: int = 1 << 20) -> States:
    states = States(directory, "model", limit)
    states.put(PREFIX, {(n, n): torch.full((2, 8), float(n)) for n in rows})
    states.flush()
    return states


def test_what_was_put_is_found_again(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    filled(tmp_path, range(3, 5))
    again = States(tmp_path, "model")
    assert again.missing(PREFIX, [(n, n) for n in range(6)]) == [(5, 5)]
    for n in range(5):
        assert torch.equal(again.get(PREFIX, (n, n)), torch.full((2, 8), float(n)))


def test_another_model_or_prompt_knows_nothing_of_it(tmp_path: Path) -> None:
    filled(tmp_path, range(1))
    assert States(tmp_path, "other").missing(PREFIX, [(0, 0)]) == [(0, 0)]
    assert States(tmp_path, "model").missing((1, 3), [(0, 0)]) == [(0, 0)]


def test_the_oldest_goes_when_there_is_too_much(tmp_path: Path) -> None:
    import os

    filled(tmp_path, range(1))
    (old,) = tmp_path.glob("*/*.safetensors")
    os.utime(old, (1, 1))
    size = old.stat().st_size
    filled(tmp_path, range(1, 2), limit=size + size // 2)
    again = States(tmp_path, "model")
    assert again.missing(PREFIX, [(0, 0), (1, 1)]) == [(0, 0)]


@pytest.mark.parametrize("harm", [lambda body: body[:-3], lambda body: body[:-8] + bytes(8), lambda body: b""])
def test_a_damaged_file_is_computed_again(tmp_path: Path, harm: object) -> None:
    filled(tmp_path, range(2))
    (path,) = tmp_path.glob("*/*.safetensors")
    path.write_bytes(harm(path.read_bytes()))  # type: ignore[operator]
    assert States(tmp_path, "model").missing(PREFIX, [(0, 0)]) == [(0, 0)]
    assert not path.exists()


def test_without_a_directory_it_is_memory(tmp_path: Path) -> None:
    states = States()
    states.put(PREFIX, {(1,): torch.ones(1, 4)})
    states.flush()
    assert states.missing(PREFIX, [(1,), (2,)]) == [(2,)]
    assert list(tmp_path.iterdir()) == []


def test_passing_states_are_let_go_and_never_written(tmp_path: Path) -> None:
    states = States(tmp_path, "m")
    states.put(PREFIX, {(1, 2): torch.ones(2, 4)})
    states.put(PREFIX, {(3,): torch.ones(1, 4)}, passing=True)
    states.flush()
    assert not states.missing(PREFIX, [(1, 2), (3,)])
    states.let_go()
    assert states.missing(PREFIX, [(1, 2), (3,)]) == [(3,)]
    assert States(tmp_path, "m").missing(PREFIX, [(1, 2), (3,)]) == [(3,)]
