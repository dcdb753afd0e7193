"""Structured logs on standard error, as text or JSON, each line with the id of the request that it came from.

Nothing that people write is logged. A traceback shows where an error was raised and of which kind it is, and neither
the values of variables nor what the error says, unless the system says it.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import orjson
import structlog

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from typing import TextIO

    from structlog.typing import EventDict, ExcInfo, Processor

# What these say is the system's.
_TELLING = (OSError, sqlite3.Error)

request_id: ContextVar[str] = ContextVar("request_id")
"""The id of the request that is being answered, where one is."""

_LEVELS = logging.getLevelNamesMapping()

# Loggers of libraries that tell at `info` what we tell ourselves, or nothing of interest.
_QUIET = ("aiosqlite", "asyncio", "uvicorn.access", "uvicorn.error")


def configure(
    level: Literal["debug", "info", "warning", "error"], output_format: Literal["text", "json"]
) -> None:
    """Set up logging for the whole program; what libraries log takes the same way."""
    threshold = _LEVELS[level.upper()]
    shared: list[Processor] = [
        _add_request_id,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(output_format)],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        cache_logger_on_first_use=True,
    )


def _add_request_id(_: object, __: str, event: EventDict) -> EventDict:
    number = request_id.get("")
    if number:
        event["request_id"] = number
    return event


def _renderers(output_format: Literal["text", "json"]) -> list[Processor]:
    if output_format == "json":
        return [
            structlog.processors.ExceptionRenderer(_format),
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write)]


def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001
    """Log an error that nobody caught; to be the exception handler of the event loop."""
    structlog.get_logger(__name__).error("unhandled_error", exc_info=context.get("exception") or False)


def _write(stream: TextIO, exc_info: ExcInfo) -> None:
    stream.write("\n" + _format(exc_info))


def _format(exc_info: ExcInfo) -> str:
    return "\n\nfrom which came:\n".join(reversed([*_chain(exc_info[1])]))


def _chain(error: BaseException | None) -> Iterator[str]:
    """An error, then what it came from, and so on."""
    while error is not None:
        inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
        parts = [*traceback.format_tb(error.__traceback__), _name(error)]
        parts += [f"\n  in this group: {part}" for one in inner for part in _chain(one)]
        yield "".join(parts)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _name(error: BaseException) -> str:
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}" + (f": {error}" if isinstance(error, _TELLING) else "")


def _json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
