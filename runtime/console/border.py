"""The border of the console: who may ask (Host, Origin, token), how much they may send, and what a browser may do with it.

Covered: other machines, other web sites in the same browser (DNS rebinding, cross-site requests), other users of
this machine (the token's file is readable by its owner only), oversized bodies, framing, injected scripts.
Not covered: programs that run as the same user, for they can read the token.
"""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_FILE = "control.token"
TOKEN_BYTES = 32
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
GUARDED = ("/api/", "/events")  # everything with data in it; the page itself is an empty shell
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def token(data: Path) -> str:
    """The secret of this data directory, made at the first call; the file can be read by its owner only."""
    path = data / TOKEN_FILE
    with suppress(FileNotFoundError):
        found = path.read_text(encoding="ascii").strip()
        if found:
            path.chmod(0o600)
            return found
        path.unlink()
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, secrets.token_urlsafe(TOKEN_BYTES).encode())
        os.close(descriptor)
    return path.read_text(encoding="ascii").strip()


class Border:
    """ASGI middleware: refuses what may not come in, and puts the browser's rules on every answer."""

    def __init__(self, app: ASGIApp, *, secret: str, port: int) -> None:
        self._app = app
        self._secret = secret.encode()
        self._hosts = {f"{name}:{port}" for name in LOOPBACK} | (set(LOOPBACK) if port == 80 else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        if refusal is None:
            await self._app(scope, receive, sealed)
            return
        status, reason = refusal
        await JSONResponse({"error": reason}, status)(scope, receive, sealed)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str] | None:
        """The status and the reason if this request may not come in."""
        if headers.get("host", "").lower() not in self._hosts:
            return 421, "this address is not ours: ask for the console on 127.0.0.1 or localhost with its port"
        origin = headers.get("origin")
        if origin is not None and origin.lower().removeprefix("http://") not in self._hosts:
            return 403, "another web site may not use the console"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and path.startswith(GUARDED):
            return 403, "another web site may not use the console"
        if path.startswith(GUARDED) and not self._known(headers.get("authorization", "")):
            return 401, f"the token is missing or wrong; it is in {TOKEN_FILE} in the data directory"
        return None

    def _known(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._secret)
