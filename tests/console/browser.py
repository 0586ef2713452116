"""A real browser, driven over its debugging pipe: a page is read when it shows what is waited for, however slow it is."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
# fd 3 is where the browser reads commands, fd 4 where it answers (Chrome DevTools Protocol, NUL after each message)
REDIRECTED = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
WAIT = 60.0  # seconds after which a page that never shows it is given up
SHOWN = """new Promise(found => {
  const look = () => document.body?.innerText.includes(%s) ? found(document.documentElement.outerHTML) : setTimeout(look, 50);
  look();
})"""


class Browser:
    """Answers come in the order of the calls: one call at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: int) -> None:
        self._reader, self._writer, self._number = reader, writer, 0

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads((await self._reader.readuntil(b"\0"))[:-1])
            if answer.get("id") == self._number:
                found: dict[str, Any] = answer["result"]
                return found

    async def page(self, url: str, text: str) -> str:
        """The whole document as markup, once this text is to be seen on it."""
        target = await self.call("Target.createTarget", url="about:blank")
        session = (await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        await self.call("Page.navigate", session, url=url)
        async with asyncio.timeout(WAIT):
            found = await self.call(
                "Runtime.evaluate", session, expression=SHOWN % json.dumps(text), awaitPromise=True, returnByValue=True
            )
        return str(found["result"]["value"])


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Browser]:
    (commands, write), (read, answers) = os.pipe(), os.pipe()
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", REDIRECTED, "bash", str(commands), str(answers), PROGRAM or "", "--headless=new", "--no-sandbox",
        "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        pass_fds=(commands, answers), stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    os.close(commands)
    os.close(answers)
    reader = asyncio.StreamReader(limit=1 << 24)
    pipe = os.fdopen(read, "rb")
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        yield Browser(reader, write)
    finally:
        os.close(write)  # the browser ends when its pipe does
        await process.wait()
        transport.close()
