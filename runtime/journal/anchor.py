"""The chain's newest link, kept outside the journal: a chain alone does not see that its end was cut off, or all of it made anew.

A file of its own, best on another disk (`[journal] anchors`): a JSON line a minute in which something was written, signed with a
key (HMAC-SHA256) that only the daemon's user can read. Where a person puts a backup back, or a damaged journal was rescued, a line
says from which link on the history is another one.

Who can read the key can write anchors: against them only a file that they cannot change helps, such as a log on another machine.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from msgspec.structs import replace

from runtime.disk import sync
from runtime.journal import chain
from runtime.journal.chain import Link
from runtime.messages import Message

FILE, KEY = "anchors.jsonl", "anchor.key"
EVERY = 60.0  # seconds
KEY_BYTES = 32
KEPT = 1000  # newest lines; each vouches for all before it
LINE_LIMIT = 1000  # bytes

log = structlog.get_logger("journal")


class Anchor(Message, frozen=True, kw_only=True):
    """At this time the newest link of the journal was this one."""

    at: float
    link: int
    hash: str  # hexadecimal
    since: int | None = None  # the journal was replaced by another one, and is the same as before up to this link
    mac: str = ""


@dataclass(frozen=True)
class Anchors:
    """The file, and the key beside the journal."""

    file: Path
    key: Path

    @classmethod
    def of(cls, data: Path, file: str = "") -> Anchors:
        """Of a data directory; `file`: where the configuration wants them."""
        return cls(Path(file).expanduser() if file else data / FILE, data / KEY)

    def write(self, link: Link, *, since: int | None = None) -> None:
        """One more line, after those that could not be written before; on the disk when this returns. Raises OSError."""
        waiting = self._waiting()
        self._append(waiting + self._line(link, since))
        if waiting:
            self.waiting.unlink()

    @property
    def waiting(self) -> Path:
        """Lines for a file that was out of reach."""
        return self.key.with_suffix(".waiting")

    def _waiting(self) -> bytes:
        return self.waiting.read_bytes() if self.waiting.exists() else b""

    def _line(self, link: Link, since: int | None) -> bytes:
        made = Anchor(at=time.time(), link=link.seq, hash=link.hash.hex(), since=since)
        return msgspec.json.encode(replace(made, mac=self._mac(made, self._key()))) + b"\n"

    def _append(self, more: bytes) -> None:
        lines, file = _lines(self.file), self.file.resolve()
        if len(lines) >= 2 * KEPT:
            beside = file.with_name(f"{file.name}.new")
            beside.unlink(missing_ok=True)
            _write(beside, b"".join(one + b"\n" for one in lines[-KEPT:]) + more)
            beside.rename(file)
        else:
            _write(file, (b"\n" if lines and not file.read_bytes().endswith(b"\n") else b"") + more)
        sync(file.parent)

    def replaced(self, journal: Path, since: int | None = None) -> None:
        """Another journal takes the place of the one that was there; up to link `since`, by default its newest, they are the same."""
        link = newest(journal)
        since = link.seq if since is None else since
        try:
            self.write(link, since=since)
        except OSError as error:  # the rescue of a journal must not hang on another disk
            log.error("no anchor yet", file=str(self.file), error=str(error))
            with suppress(OSError):
                _write(self.waiting, self._line(link, since))

    def wrong(
        self, lines: Sequence[bytes], hash_of: Callable[[int], bytes | None], head: int, gone: int = 0
    ) -> Iterator[str]:
        """What the file's lines say of a journal with these links that is not so; links up to `gone` need not be there any more.
        The lines have to be read first: a daemon that runs goes on."""
        if lines and not self.key.exists():
            yield f"the key {self.key} is gone, so that nobody can tell whether {self.file} is genuine"
            return
        limit = float("inf")
        for number, line in reversed(list(enumerate(lines, start=1))):
            one = self._read(line)
            if one is None:
                if number < len(lines):  # the last one may be half written
                    yield f"line {number} of {self.file} was changed"
                continue
            if one.link > limit:
                continue  # of the journal that was replaced
            if one.link > head:
                yield f"ends at link {head}, and had link {one.link} at {_when(one.at)}: its end was cut off"
                return
            found = hash_of(one.link)
            if one.link and (found or b"").hex() != one.hash and (found or one.link > gone):
                yield f"link {one.link} is not the one of {_when(one.at)}: the journal was written anew"
                return
            if one.since is not None:
                limit = min(limit, one.since)

    def lines(self) -> list[bytes]:
        return _lines(self.file) + _lines(self.waiting)

    def _read(self, line: bytes) -> Anchor | None:
        with suppress(msgspec.MsgspecError, OSError, ValueError):
            one = msgspec.json.decode(line[:LINE_LIMIT], type=Anchor)
            if hmac.compare_digest(one.mac, self._mac(one, self._key())):
                return one
        return None

    def _mac(self, one: Anchor, key: bytes) -> str:
        return hmac.digest(key, msgspec.json.encode(replace(one, mac="")), "sha256").hex()

    def _key(self) -> bytes:
        """Made at the first time, whole or not at all. Raises OSError where there are anchors, and their key is gone."""
        if not self.key.exists():
            if self.lines():
                raise OSError(
                    f"{self.key} is gone, and {self.file} was signed with it; move that file away to begin anew"
                )
            beside = self.key.with_suffix(".new")
            beside.unlink(missing_ok=True)
            _write(beside, secrets.token_bytes(KEY_BYTES))
            beside.rename(self.key)
            sync(self.key.parent)
        key = self.key.read_bytes()
        if len(key) != KEY_BYTES:
            raise OSError(f"{self.key} is damaged; move it and {self.file} away to begin anew")
        return key


def _lines(file: Path) -> list[bytes]:
    with suppress(FileNotFoundError):
        return [line for line in file.read_bytes().split(b"\n") if line]
    return []


def _write(file: Path, more: bytes) -> None:
    """At the end of a file that only we may read, on the disk when this returns."""
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as opened:
        opened.write(more)
        opened.flush()
        os.fsync(opened.fileno())


def newest(journal: Path) -> Link:
    """Of a journal that is not open here; link 0 of one from before the chain."""
    with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            return chain.newest(connection)
        except sqlite3.OperationalError:
            return Link(0, chain.START)


async def regularly(head: Callable[[], Link], anchors: Anchors) -> None:
    """A line whenever there is a new link, at most one a minute; and one at the end."""
    last = Link(0, chain.START)
    try:
        while True:
            last = await asyncio.to_thread(_noted, anchors, head(), last)
            await asyncio.sleep(EVERY)
    finally:
        _noted(anchors, head(), last)


def _noted(anchors: Anchors, head: Link, last: Link) -> Link:
    if head == last:
        return last
    try:
        anchors.write(head)
    except OSError as error:
        log.error("no anchor", file=str(anchors.file), error=str(error))
        return last
    return head


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
