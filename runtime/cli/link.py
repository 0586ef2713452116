"""The way from a command to its answer: over loopback to the running daemon, or else to the journal with its lock held."""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from runtime.errors import BadInput, CorrigibleError, NotFound, Unavailable

if TYPE_CHECKING:
    from runtime.config import Config

DEFAULT_FILE = Path("config.toml")
TIMEOUT = 120.0  # seconds; a spoken sentence may wait for a decoded reply
# What may be asked -> its address. The names are those of the commands of `runtime.control`; arguments that are not in the
# address go into the query of a GET and into the body of a POST.
ROUTES = {
    "status": "GET /api/status",
    "decisions": "GET /api/decisions",
    "explain": "GET /api/decisions/{decision_id}",
    "mattered": "GET /api/decisions/{decision_id}/mattered",
    "prove": "POST /api/decisions/{decision_id}/prove",
    "proof": "GET /api/decisions/{decision_id}/proof",
    "modes": "GET /api/modes",
    "held": "GET /api/held",
    "uncertain": "GET /api/uncertain",
    "cycles": "GET /api/cycles",
    "adapters": "GET /api/adapters",
    "adapter": "GET /api/adapters/{id}",
    "changes": "GET /api/adapters/{id}/changes",
    "curve": "GET /api/curve",
    "satisfaction": "GET /api/satisfaction",
    "feedback": "POST /api/feedback",
    "forget": "POST /api/forget",
    "edit": "POST /api/edit",
    "doubted": "GET /api/doubts",
    "sources": "GET /api/sources",
    "vouch": "POST /api/vouch",
    "say": "POST /api/say",
    "set_mode": "POST /api/modes",
    "kill": "POST /api/kill",
    "set_safe": "POST /api/safe",
    "set_table": "POST /api/table",
    "set_memory": "POST /api/memory",
    "approve": "POST /api/approve",
    "resolve": "POST /api/resolve",
    "backup": "POST /api/backup",
    "learn": "POST /api/learn",
    "promote": "POST /api/adapters/{id}/promote",
    "rollback": "POST /api/rollback",
}
ONLY_LIVE = (
    "say",
    "learn",
    "mattered",
    "prove",
    "proof",
    "approve",
    "held",
    "set_safe",
    "set_table",
    "set_memory",
)  # without a daemon there is nobody to answer, learn or wait
DOWN: dict[str, object] = {
    "pid": None,
    "uptime": None,
    "ready": {},
    "degraded": ["the daemon is not running"],
    "condition": "DOWN",
    "causes": ["the daemon is not running"],
    "plugins": [],
    "processes": {},
}
ERRORS = {400: BadInput, 404: NotFound, 503: Unavailable}


def settings(path: Path | None) -> Config:
    """The configuration a command works with: the given file, else `config.toml` here, else the defaults."""
    from runtime import config

    return config.load(path or default_file())


def default_file() -> Path | None:
    """`config.toml` in the working directory, if there is one."""
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def ask(config: Config, name: str, **arguments: Any) -> Any:
    """Ask the daemon, and if none runs, the journal itself. Raises a CorrigibleError that can be shown as it is."""
    address = address_of(config)
    if address is not None:
        try:
            return _over_http(address, name, arguments)
        except ConnectionRefusedError:
            pass  # a port file that a killed daemon left behind
    if name in ONLY_LIVE:
        raise Unavailable("the daemon is not running; start it with `corrigible run`")
    return asyncio.run(_offline(config, name, arguments))


def address_of(config: Config) -> tuple[str, int, str] | None:
    """Host, port and token of the daemon, as it wrote them into the data directory."""
    try:
        port = int((config.agent.data / "http.port").read_text(encoding="ascii"))
        token = (config.agent.data / "control.token").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ValueError):
        return None
    except PermissionError:
        raise Unavailable(
            f"{config.agent.data / 'control.token'} is another user's: only they may talk to this daemon"
        ) from None
    return config.http.host, port, token


def page_of(config: Config) -> str:
    """The page's address with its token, for a person's own terminal; empty if no daemon runs."""
    address = address_of(config)
    if address is None:
        return ""
    host, port, token = address
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/#{token}"


def _over_http(address: tuple[str, int, str], name: str, arguments: dict[str, Any]) -> Any:
    host, port, token = address
    method, path = ROUTES[name].split(" ")
    rest = {key: value for key, value in arguments.items() if f"{{{key}}}" not in path}
    path = path.format_map({key: quote(str(value), safe="") for key, value in arguments.items()})
    headers = {"Authorization": f"Bearer {token}"}
    body = None
    if method == "POST":
        body = json.dumps(rest, allow_nan=False).encode()
        headers["Content-Type"] = "application/json"
    elif rest:
        path += f"?{urlencode(rest)}"
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return _answer(response.status, response.read())
    except TimeoutError:
        raise Unavailable(f"the daemon did not answer within {TIMEOUT:g} s; see its log") from None
    except (ConnectionResetError, http.client.HTTPException) as error:
        raise Unavailable(f"the daemon hung up ({type(error).__name__}); see its log") from None
    finally:
        connection.close()


def _answer(status: int, body: bytes) -> Any:
    try:
        value = json.loads(body)
    except ValueError:
        raise Unavailable(
            f"what listens at the daemon's port is not Corrigible (status {status}); see data/http.port"
        ) from None
    if status < 400:
        return value
    raise ERRORS.get(status, CorrigibleError)(value.get("error", f"status {status}"))


async def _offline(config: Config, name: str, arguments: dict[str, Any]) -> Any:
    from runtime import app, logging
    from runtime.config import LogConfig

    logging.setup(LogConfig(level="warning"))  # the answer is what a person wants to read, not the parts' own lines
    async with app.offline(config) as stand_in:
        answer = await stand_in.command(name)(**arguments)
    return {**answer, **DOWN} if name == "status" else answer
