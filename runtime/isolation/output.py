"""What an isolated plugin prints -> the daemon's log, so many lines a second and no more."""

from __future__ import annotations

import asyncio
import re
import time

import structlog

LINES = 20  # a second
LONGEST = 500  # characters of a line
CHUNK = 1 << 16  # bytes read at once
PAUSE = 0.02  # seconds between two chunks of one who prints too much

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a line of the log stays one, and moves no cursor
log = structlog.get_logger("plugin")


async def captured(reader: asyncio.StreamReader, plugin: str) -> None:
    """Until the pipe closes. What is too much is read and dropped, with its number of lines said."""
    second, said, dropped, rest = time.monotonic(), 0, 0, b""
    while chunk := await reader.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[:LONGEST]
        if time.monotonic() - second >= 1.0:
            if dropped:
                log.warning("printed too much", plugin=plugin, lines_dropped=dropped)
            second, said, dropped = time.monotonic(), 0, 0
        for line in lines[: LINES - said]:
            _say(plugin, line)
        dropped += max(0, len(lines) - (LINES - said))
        said = min(LINES, said + len(lines))
        if said == LINES:
            await asyncio.sleep(PAUSE)
    if rest:
        _say(plugin, rest)
    if dropped:
        log.warning("printed too much", plugin=plugin, lines_dropped=dropped)


def _say(plugin: str, line: bytes) -> None:
    text = CONTROL.sub("?", line[:LONGEST].decode(errors="replace")).strip()
    if text:
        log.info(text, plugin=plugin)
