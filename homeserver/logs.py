"""Structured logs on standard error, as text or JSON, each line with what `structlog.contextvars` holds (the id of the request)."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import orjson
import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

_LEVELS = logging.getLevelNamesMapping()

# Loggers of libraries that tell at `info` what we tell ourselves, or nothing of interest.
_QUIET = ("aiosqlite", "asyncio", "uvicorn.access", "uvicorn.error")


def configure(
    level: Literal["debug", "info", "warning", "error"], output_format: Literal["text", "json"]
) -> None:
    """Set up logging for the whole program; what libraries log takes the same way."""
    threshold = _LEVELS[level.upper()]
    shared: list[Processor] = [
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


def _renderers(output_format: Literal["text", "json"]) -> list[Processor]:
    if output_format == "json":
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    # No local variables in tracebacks: they may hold what people wrote.
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]


def _json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
