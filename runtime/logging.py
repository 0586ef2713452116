"""Log lines: key-value with colours on a terminal, one JSON object a line otherwise, always on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from runtime.config import LogConfig

QUIET = ("uvicorn", "asyncio", "aiomqtt", "mqtt", "sse_starlette", "httpx", "httpcore", "aiosqlite")
SECRETS = ("password", "token", "secret", "authorization")
LONGEST = 2000  # characters of one value in a line; payloads come from outside


def setup(config: LogConfig) -> None:
    """Let structlog and the standard library's loggers write the same lines. Calling it again replaces the first."""
    text = config.format == "text" or (config.format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
        _redact,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_ending(text, config.level)],
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


def _ending(text: bool, level: str) -> Sequence[Processor]:
    if not text:
        return (structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False))
    renderer = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return (renderer,) if level == "debug" else (_brief, renderer)


def _brief(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """A person sees what went wrong in one line; the stack is there with `level = "debug"` and in JSON."""
    exc_info = event.pop("exc_info", None)
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        event.setdefault("error", f"{type(error).__name__}: {error}")
    return event


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if key.lower() in SECRETS:
            event[key] = "***"
        elif isinstance(value, str) and len(value) > LONGEST:
            event[key] = f"{value[:LONGEST]}… ({len(value)} characters)"
    return event
