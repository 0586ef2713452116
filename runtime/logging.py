"""Log lines: key-value with colours on a terminal, one JSON object a line otherwise, always on stderr."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from runtime.config import LogConfig

QUIET = ("uvicorn", "asyncio", "aiomqtt", "mqtt", "sse_starlette", "httpx", "httpcore", "aiosqlite")
SECRETS = ("password", "token", "secret", "authorization", "api_key")  # ends of names
LOGIN = re.compile(r"//[^/@\s]+@")  # of an address
SHORTEST = 4  # characters of a secret that is looked for; a shorter one is part of many words
LONGEST = 2000  # characters of one value in a line; payloads come from outside


def setup(config: LogConfig, secrets: Sequence[str] = ()) -> None:
    """Let structlog and the standard library's loggers write the same lines, without these `secrets`. Calling it again replaces
    the first."""
    text = config.format == "text" or (config.format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_ending(text, config.level, secrets),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=config.level.upper(), force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _ending(text: bool, level: str, secrets: Sequence[str]) -> Sequence[Processor]:
    redact = _redact([secret for secret in secrets if len(secret) >= SHORTEST])
    if not text:
        return (structlog.processors.format_exc_info, redact, structlog.processors.JSONRenderer(ensure_ascii=False))
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    shown = structlog.processors.format_exc_info if level == "debug" else _brief
    return (shown, redact, renderer)


def _brief(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A person sees what went wrong in one line; the stack is there with `level = "debug"` and in JSON."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        event.setdefault("error", f"{type(error).__name__}: {error}")
    return event


def _redact(known: Sequence[str]) -> Processor:
    """The last look at a line: nothing that is called a secret, is one that we know, or stands before the `@` of an address;
    and nothing longer than a person reads. Exceptions are text by now."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: "***" if _secret(key) else clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        if not isinstance(value, str):
            return value
        for secret in known:
            value = value.replace(secret, "***")
        value = LOGIN.sub("//***@", value)
        return value if len(value) <= LONGEST else f"{value[:LONGEST]}… ({len(value)} characters)"

    def processor(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return dict(clean(dict(event)))

    return processor


def _secret(key: object) -> bool:
    return str(key).lower().endswith(SECRETS)
