"""Nothing in the journal is changed, added, taken out or cut off unnoticed; and what the daemon itself does is never called so."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.errors import Unavailable, Unwritable
from runtime.journal import Journal, anchor, backups, chain, opening, rescue, verify, writer
from runtime.journal.anchor import Anchors
from tests.journal.test_doctor import loop
from tests.stages import observation

TABLES = ("observation", "percept", "decision", "command", "outcome", "feedback")


async def write(path: Path, *numbers: int, anchors: Anchors | None = None) -> None:
    async with Journal.open(path) as journal:
        for number in numbers:
            await journal.put(*loop(number, 1000.0 + number))
            await journal.perceived([f"o{number}"])
        (anchors or Anchors.of(path.parent)).write(journal.head)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("honest") / "journal.db"
    asyncio.run(write(path, *range(8)))
    asyncio.run(write(path, *range(8, 12)))
    return path


def found(path: Path, anchors: Anchors | None = None) -> list[str]:
    anchors = anchors or Anchors.of(path.parent)
    with closing(sqlite3.connect(path)) as connection:
        said = partial(anchors.wrong, anchors.lines())
        return [f"{where} {what}" for where, what in verify.wrong(connection, said)]


def copied(honest: Path, folder: Path) -> Path:
    for name in ("journal.db", anchor.FILE, anchor.KEY):
        (folder / name).write_bytes((honest.parent / name).read_bytes())
    return folder / "journal.db"


def test_what_the_daemon_wrote_is_whole(honest: Path) -> None:
    assert found(honest) == []


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_changed_is_found(
    honest: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """One row: changed in one column, taken out, doubled under another number, or exchanged with another."""
    path = copied(honest, tmp_path_factory.mktemp("changed"))
    table = data.draw(st.sampled_from((*TABLES, "chain")))
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        rows = base.execute(f"SELECT * FROM {table}").fetchall()
        names = [column[1] for column in base.execute(f"PRAGMA table_info({table})")]
        row = data.draw(st.sampled_from(rows))
        how = data.draw(st.sampled_from(("change", "remove", "add", "exchange")))
        if how == "change":
            name = data.draw(st.sampled_from([n for n in names if n not in ("seq", "perceived", "gone")]))
            old = row[names.index(name)]
            new = data.draw(
                st.floats(0, 9) if isinstance(old, float) else st.binary(max_size=40) if isinstance(old, bytes) else st.text("ab[]", max_size=9)
            )  # fmt: skip
            if isinstance(old, int) or new == old:
                new = 7
            try:
                base.execute(f"UPDATE {table} SET {name} = ? WHERE seq = ?", (new, row[0]))
            except sqlite3.IntegrityError:
                return
        elif how == "remove":
            base.execute(f"DELETE FROM {table} WHERE seq = ?", (row[0],))
        elif how == "add":
            seq = data.draw(st.sampled_from((len(rows) + 1, len(rows) + 100)))
            values = [seq, *(f"{value}x" if isinstance(value, str) else value for value in row[1:])]
            base.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", values)
        else:
            other = data.draw(st.sampled_from([one for one in rows if one != row]))
            for seq, to in ((row[0], -1), (other[0], row[0]), (-1, other[0])):
                base.execute(f"UPDATE {table} SET seq = ? WHERE seq = ?", (to, seq))
    assert found(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(link=st.integers(0, 11))
def test_an_end_that_was_cut_off_is_found(honest: Path, tmp_path_factory: pytest.TempPathFactory, link: int) -> None:
    """With all that it covered: the chain is in order, and shorter than the anchor says."""
    path = copied(honest, tmp_path_factory.mktemp("cut"))
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("DELETE FROM chain WHERE seq > ?", (link,))
        for table in reversed(TABLES):
            base.execute(f"DELETE FROM {table} WHERE seq > ?", (link,))
    (said,) = found(path)
    assert f"ends at link {link}, and had link 12" in said


async def test_a_journal_that_was_made_anew_is_found(honest: Path, tmp_path: Path) -> None:
    """Every link fits; only the anchor tells."""
    path = copied(honest, tmp_path)
    path.unlink()
    async with Journal.open(path) as journal:
        for number in range(13):
            await journal.put(*loop(number, 2000.0 + number))
    (said,) = found(path)
    assert "was written anew" in said


@pytest.mark.parametrize("forged", ["hash", "link", "mac"])
def test_a_changed_anchor_is_found(honest: Path, tmp_path: Path, forged: str) -> None:
    path = copied(honest, tmp_path)
    lines = (tmp_path / anchor.FILE).read_text().splitlines()
    told = json.loads(lines[0])
    told[forged] = told[forged] - 1 if forged == "link" else told[forged][::-1]
    (tmp_path / anchor.FILE).write_text("\n".join([json.dumps(told), *lines[1:]]) + "\n")
    assert any("line 1 of" in said and "was changed" in said for said in found(path))


def test_without_its_key_no_anchor_is_believed(honest: Path, tmp_path: Path) -> None:
    path = copied(honest, tmp_path)
    (tmp_path / anchor.KEY).unlink()
    assert any("is gone" in said for said in found(path))


async def test_a_backup_that_was_put_back_is_no_forgery(tmp_path: Path) -> None:
    path = tmp_path / backups.JOURNAL
    await write(path, *range(5))
    backup = backups.make(tmp_path)
    await write(path, *range(5, 9))
    backups.restore(tmp_path, backup)
    assert found(path) == []
    await write(path, *range(20, 25))
    assert found(path) == []
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("DELETE FROM chain WHERE seq > 7")
    assert found(path), "what came after it is watched, too"


async def test_a_rescued_journal_is_no_forgery(tmp_path: Path) -> None:
    path = tmp_path / backups.JOURNAL
    await write(path, *range(5))
    backups.make(tmp_path)
    await write(path, *range(5, 40))
    raw = bytearray(path.read_bytes())
    raw[4096 * 6 : 4096 * 7] = bytes(4096)
    path.write_bytes(raw)
    assert rescue.ensure(tmp_path) is not None
    assert found(path) == []
    await write(path, *range(50, 60))
    assert found(path) == []


async def test_what_is_older_than_the_chain_is_not_covered_and_no_forgery(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write(path, *range(4))
    (tmp_path / anchor.FILE).unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as base:  # as an older Corrigible left it
        base.executescript("DROP TABLE chain; DROP TABLE removed; DROP INDEX gap_open; PRAGMA user_version = 6;")
    await write(path, *range(4, 8))
    assert found(path) == []
    with closing(sqlite3.connect(path, isolation_level=None)) as base:
        base.execute("UPDATE percept SET text = 'x' WHERE seq = 5")
    assert found(path)


async def test_a_half_written_anchor_is_passed_over(tmp_path: Path) -> None:
    """The power went while it was written; the next line begins on its own."""
    path = tmp_path / "journal.db"
    await write(path, 1)
    with (tmp_path / anchor.FILE).open("ab") as file:
        file.write(b'{"at":12.5,"li')
    assert found(path) == []


def test_the_file_of_anchors_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor, "KEPT", 5)
    anchors = Anchors.of(tmp_path)
    for seq in range(1, 40):
        anchors.write(chain.Link(seq, bytes([seq]) * 32))
    assert len(anchors.lines()) <= 10
    assert list(anchors.wrong(anchors.lines(), lambda seq: bytes([seq]) * 32, 39)) == []
    assert (tmp_path / anchor.KEY).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("late", [0, 3])
@pytest.mark.parametrize("made", [True, False])
async def test_a_commit_in_doubt_is_settled_by_its_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: int, *, made: bool
) -> None:
    """The disk reports an error of the commit, though it was made, or one that was not, and for a while it gives nothing more:
    what is told is what is there, and it goes on."""
    path, opened, refused = tmp_path / "journal.db", opening.reopened, list[int]()

    def reopened(old: Failing, where: Path) -> sqlite3.Connection:
        if len(refused) < late:
            refused.append(1)
            raise Unavailable("the disk gives nothing")
        return opened(old.real, where)

    monkeypatch.setattr(writer, "AGAIN", 0.0)
    async with Journal.open(path) as journal:
        await journal.put(observation("home/a", b"1", 1))
        monkeypatch.setattr(opening, "reopened", reopened)
        failing = Failing(journal._writer._connection._conn, made=made)
        journal._writer._connection._connection = failing  # type: ignore[assignment]
        if made:
            assert await journal.put(observation("home/a", b"1", 2)) == 1
        else:
            with pytest.raises(Unwritable, match="could not store"):
                await journal.put(observation("home/a", b"1", 2))
        assert await journal.put(observation("home/a", b"1", 2)) == (not made)
        assert await journal.put(observation("home/a", b"1", 3)) == 1
    assert found(path) == []


async def test_damage_is_not_waited_for(tmp_path: Path) -> None:
    """A stage ends, and the next start rescues; it would wait for ever."""
    async with Journal.open(tmp_path / "journal.db") as journal:
        failing = Failing(journal._writer._connection._conn, made=False, code=sqlite3.SQLITE_CORRUPT)
        journal._writer._connection._connection = failing  # type: ignore[assignment]
        with pytest.raises(Unavailable) as raised:
            await journal.put(observation("home/a", b"1", 1), patient=True)
        assert not isinstance(raised.value, Unwritable)
        journal._writer._connection._connection = failing.real


async def test_whatever_fails_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Journal.open(tmp_path / "journal.db") as journal:
        with monkeypatch.context() as patched:
            patched.setattr(writer, "_write", lambda *given: 1 / 0)
            with pytest.raises(Unavailable, match="division"):
                await journal.put(observation("home/a", b"1", 1))
        assert await journal.put(observation("home/a", b"1", 1)) == 1


async def test_anchors_out_of_reach_stop_no_restore(tmp_path: Path) -> None:
    """Their disk is away while a backup is put back; the line is written once it is there again."""
    data, away = tmp_path / "data", tmp_path / "disk"
    for folder in (data, away):
        folder.mkdir()
    anchors = Anchors.of(data, str(away / "anchors"))
    path = data / backups.JOURNAL
    await write(path, *range(5), anchors=anchors)
    backup = backups.make(data)
    await write(path, *range(5, 9), anchors=anchors)
    away.rename(tmp_path / "gone")
    backups.restore(data, backup, anchors)
    (tmp_path / "gone").rename(away)
    assert found(path, anchors) == []
    await write(path, *range(20, 22), anchors=anchors)
    assert not anchors.waiting.exists()
    assert found(path, anchors) == []


def test_a_damaged_key_signs_nothing(tmp_path: Path) -> None:
    anchors = Anchors.of(tmp_path)
    anchors.key.touch()
    with pytest.raises(OSError, match="is damaged"):
        anchors.write(chain.Link(1, bytes(32)))


class Failing:
    """A connection whose next commit fails with an error of the disk; `made`: after it was made."""

    def __init__(self, real: sqlite3.Connection, *, made: bool, code: int = sqlite3.SQLITE_IOERR_FSYNC) -> None:
        self.real, self._made, self._code = real, made, code

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if sql != "COMMIT":
            return self.real.execute(sql, *values)  # type: ignore[arg-type]
        self.real.execute("COMMIT" if self._made else "ROLLBACK")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = self._code
        raise error

    def close(self) -> None:
        self.real.close()

    @property
    def in_transaction(self) -> bool:
        return self.real.in_transaction
