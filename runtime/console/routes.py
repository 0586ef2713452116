"""What the console answers: health, figures, the page, and one small JSON route for each thing a person may ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime import metrics as figures
from runtime.console import events
from runtime.errors import BadInput, CorrigibleError, Corrupt, NotFound, Unavailable

if TYPE_CHECKING:
    from runtime.control import Control

BODY_LIMIT = 64 * 1024  # bytes of one request
MOST = 500  # rows of one answer
STATUS = {BadInput: 400, NotFound: 404, Unavailable: 503, Corrupt: 500}
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}

log = structlog.get_logger("console")
Answer = Callable[[Request], Awaitable[Response]]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what may be posted; a key that nobody knows is an error."""


class GiveFeedback(Body, frozen=True, kw_only=True):
    decision_id: str
    kind: Literal["correction", "acceptance", "rating", "preference"]
    action: str = ""
    rejected: str = ""
    rating: float | None = None
    source: str = "person"
    note: str = ""
    id: str = ""


class Say(Body, frozen=True, kw_only=True):
    text: str
    scope: str = "chat"
    who: str = ""


class SetMode(Body, frozen=True, kw_only=True):
    actuator: str
    mode: str


class Switch(Body, frozen=True, kw_only=True):
    on: bool


class Forget(Body, frozen=True, kw_only=True):
    decision_id: str = ""
    source: str = ""
    since: float | None = None
    until: float | None = None


class Edit(Body, frozen=True, kw_only=True):
    feedback_id: str
    action: str = ""
    accept: bool = False
    note: str = ""


class Vouch(Body, frozen=True, kw_only=True):
    names: list[str]


class Approve(Body, frozen=True, kw_only=True):
    command_id: str
    yes: bool


class Backup(Body, frozen=True, kw_only=True):
    to: str = ""


class Resolve(Body, frozen=True, kw_only=True):
    command_id: str
    done: bool


class Empty(Body, frozen=True, kw_only=True):
    pass


B = TypeVar("B", bound=Body)


def application(control: Control, metrics: figures.Metrics, streams: events.Streams) -> Starlette:
    """All routes; the border (token, Host, Origin) is put around it by the server."""
    get = partial(_route, "GET")
    post = partial(_route, "POST")
    looking, showing, saying, switching = control.looking, control.showing, control.saying, control.switching
    return Starlette(
        routes=[
            *(get(path, partial(_page, *page)) for path, page in PAGE.items()),
            get("/healthz", _healthz),
            get("/readyz", partial(_readyz, control)),
            get("/metrics", partial(_metrics, control, metrics)),
            get("/events", partial(_events, control, streams)),
            get("/api/status", _plain(looking.status)),
            get("/api/decisions", partial(_decisions, control)),
            get("/api/decisions/{id}", _by_id(showing.explain)),
            get("/api/decisions/{id}/mattered", _by_id(showing.mattered)),
            get("/api/decisions/{id}/proof", _by_id(showing.proof)),
            get("/api/modes", _plain(looking.modes)),
            get("/api/held", _plain(looking.held)),
            get("/api/uncertain", _plain(looking.uncertain)),
            get("/api/cycles", partial(_cycles, control)),
            get("/api/adapters", _plain(looking.adapters)),
            get("/api/adapters/{id}", _by_id(looking.adapter)),
            get("/api/adapters/{id}/changes", partial(_changes, control)),
            get("/api/doubts", _plain(saying.doubted)),
            get("/api/sources", _plain(saying.sources)),
            get("/api/curve", _plain(looking.curve)),
            get("/api/satisfaction", partial(_satisfaction, control)),
            get("/api/topics", _plain(looking.topics)),
            post("/api/feedback", _posted(GiveFeedback, lambda b: saying.feedback(**msgspec.structs.asdict(b)))),
            post("/api/forget", _posted(Forget, lambda b: saying.forget(**msgspec.structs.asdict(b)))),
            post("/api/edit", _posted(Edit, lambda b: saying.edit(**msgspec.structs.asdict(b)))),
            post("/api/vouch", _posted(Vouch, lambda b: saying.vouch(b.names))),
            post("/api/say", _posted(Say, lambda b: saying.say(b.text, b.scope, b.who))),
            post("/api/modes", _posted(SetMode, lambda b: switching.set_mode(b.actuator, b.mode))),
            post("/api/kill", _posted(Switch, lambda b: switching.kill(b.on))),
            post("/api/safe", _posted(Switch, lambda b: switching.set_safe(b.on))),
            post("/api/table", _posted(Switch, lambda b: switching.set_table(b.on))),
            post("/api/memory", _posted(Switch, lambda b: switching.set_memory(b.on))),
            post("/api/approve", _posted(Approve, lambda b: switching.approve(b.command_id, b.yes))),
            post("/api/resolve", _posted(Resolve, lambda b: switching.resolve(b.command_id, b.done))),
            post("/api/backup", _posted(Backup, lambda b: switching.backup(b.to))),
            post("/api/learn", _posted(Empty, lambda _: switching.learn())),
            post("/api/decisions/{id}/prove", _by_id(showing.prove)),
            post("/api/rollback", _posted(Empty, lambda _: switching.rollback())),
            post("/api/adapters/{id}/promote", _by_id(switching.promote)),
        ],
        exception_handlers={HTTPException: _http_error},
    )


def _route(method: str, path: str, answer: Answer) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            return await answer(request)
        except CorrigibleError as error:
            return _json({"error": str(error)}, STATUS.get(_kind(error), 409))
        except HTTPException:
            raise
        except Exception as error:  # the border to browsers: they get no insides
            log.error("the console failed", path=path, error=f"{type(error).__name__}: {error}")
            return _json({"error": "something went wrong inside; the log says more"}, 500)

    return Route(path, endpoint, methods=[method])


def _kind(error: CorrigibleError) -> type[CorrigibleError]:
    return next((kind for kind in STATUS if isinstance(error, kind)), CorrigibleError)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons: Mapping[int, str] = {
        404: "there is nothing at this address",
        405: "this address does not take that method",
    }
    return _json({"error": reasons.get(error.status_code, error.detail)}, error.status_code)


def _plain(ask: Callable[[], Awaitable[Any]]) -> Answer:
    async def answer(_: Request) -> Response:
        return _json(await ask())

    return answer


def _by_id(ask: Callable[[str], Awaitable[Any]]) -> Answer:
    async def answer(request: Request) -> Response:
        return _json(await ask(request.path_params["id"]))

    return answer


def _posted(kind: type[B], ask: Callable[[B], Awaitable[Any]]) -> Answer:
    async def answer(request: Request) -> Response:
        return _json(await ask(await _body(request, kind)))

    return answer


async def _body(request: Request, kind: type[B]) -> B:
    """The posted JSON object, at most BODY_LIMIT bytes of it."""
    given = request.headers.get("content-type", "")
    if given.split(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON with Content-Type: application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise HTTPException(413, f"the request is larger than {BODY_LIMIT} bytes")
    try:
        return msgspec.json.decode(bytes(body) or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the request cannot be used: {error}") from None


async def _page(file: str, media_type: str, _: Request) -> Response:
    content = resources.files("runtime.console").joinpath(file).read_bytes()
    return Response(content, media_type=f"{media_type}; charset=utf-8")


async def _healthz(_: Request) -> Response:
    return _json({"ok": True})


async def _readyz(control: Control, _: Request) -> Response:
    status = await control.looking.status()
    ready = all(status["ready"].values())
    stands = {"condition": status["condition"], "causes": status["causes"]}
    body = {"ready": ready, **stands, "parts": status["ready"], "degraded": status["degraded"]}
    return _json(body, 200 if ready else 503)


async def _metrics(control: Control, metrics: figures.Metrics, _: Request) -> Response:
    metrics.content((await control.looking.satisfaction())["lately"])
    return Response(metrics.text(), headers={"Content-Type": figures.CONTENT_TYPE})


async def _events(control: Control, streams: events.Streams, _: Request) -> Response:
    return streams.response(control)


async def _decisions(control: Control, request: Request) -> Response:
    query = request.query_params
    return _json(await control.showing.decisions(_limit(request, 50), query.get("before", ""), query.get("scope", "")))


async def _changes(control: Control, request: Request) -> Response:
    return _json(await control.looking.changes(request.path_params["id"], request.query_params.get("since", "")))


async def _cycles(control: Control, request: Request) -> Response:
    return _json(await control.looking.cycles(_limit(request, 20)))


async def _satisfaction(control: Control, request: Request) -> Response:
    text = request.query_params.get("days", "0")
    try:
        days = float(text[:20])
    except ValueError:
        raise BadInput(f"days is a number above 0, not {text[:20]!r}") from None
    return _json(await control.looking.satisfaction(days))


def _limit(request: Request, default: int) -> int:
    text = request.query_params.get("limit", str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST:
        raise BadInput(f"limit is a number from 1 to {MOST}, not {text[:20]!r}")
    return int(text)
