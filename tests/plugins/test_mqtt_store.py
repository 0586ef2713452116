"""A producer's file: what was added is there after any death, under the same name, and no more than is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.mqtt_store import Store
from runtime.errors import BadInput, Corrupt, Unavailable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "house.db"


def test_what_waits_has_the_same_identity_in_the_next_run(path: Path) -> None:
    store = Store(path)
    added = [store.add("home/hall", b"1", numbered=True), store.add("corrigible/c/feedback", b"{}", numbered=False)]
    added.append(store.add("home/hall", b"2", numbered=True))
    store.forget([added[0].place])
    store.close()
    store = Store(path)
    assert store.waiting() == added[1:]
    assert [kept.told("p") for kept in added] == [
        {"producer": "p", "boot": added[0].boot, "seq": "1"},
        {"producer": "p", "id": f"p/{added[0].boot}/said-2"},
        {"producer": "p", "boot": added[0].boot, "seq": "2"},
    ]
    assert store.add("home/hall", b"3", numbered=True).identity("p") == f"p/{added[0].boot}/3"
    store.close()


def test_no_number_is_used_twice_although_nothing_waits(path: Path) -> None:
    for expected in (1, 2, 3):
        store = Store(path)
        kept = store.add("t", b"", numbered=True)
        assert (kept.seq, kept.place) == (expected, expected)
        store.forget([kept.place])
        store.close()


def test_too_many_are_refused_until_some_are_acknowledged(path: Path) -> None:
    store = Store(path, limit=2)
    first, _ = (store.add("t", b"", numbered=True) for _ in range(2))
    with pytest.raises(BadInput, match="2 messages wait for the agent"):
        store.add("t", b"", numbered=True)
    store.forget([first.place])
    assert store.add("t", b"", numbered=True).seq == 3
    store.close()


def test_what_no_database_takes_does_not_stand_in_the_way_of_the_next(path: Path) -> None:
    store = Store(path)
    with pytest.raises(UnicodeEncodeError):
        store.add("home/\ud800", b"", numbered=True)
    kept = store.add("home/hall", b"", numbered=True)
    assert (kept.seq, store.waiting()) == (1, [kept])
    store.close()


def test_a_second_process_is_refused(path: Path) -> None:
    store = Store(path)
    with pytest.raises(Unavailable, match="another process"):
        Store(path)
    store.close()


def test_a_file_that_is_none_of_ours_is_named(path: Path) -> None:
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(Corrupt, match=r"house\.db"):
        Store(path)
