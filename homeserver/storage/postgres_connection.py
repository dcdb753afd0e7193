"""Connections to PostgreSQL: how they are set up, and what they make of text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import structlog

from homeserver.storage.dialect import escape_text, unescape_text
from homeserver.storage.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from asyncpg.pool import PoolConnectionProxy

SLOW_SECONDS = 1.0
"""A statement that takes longer is named in the log."""
_CONNECT_SECONDS = 10.0
_CACHED_STATEMENTS = 512
# A process that stands still inside a transaction holds up the writes of all others.
_SETTINGS = {"application_name": "restante", "idle_in_transaction_session_timeout": "60s", "jit": "off"}

LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    # Raised by the first question after PostgreSQL has said that it ends the connection.
    asyncpg.InternalClientError,
)
"""What is raised when a connection cannot be made, or gets lost."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


def unavailable(error: BaseException) -> DatabaseUnavailable:
    """The error for a lost connection."""
    return DatabaseUnavailable(f"PostgreSQL cannot be reached: {error}")


async def set_up(connection: asyncpg.Connection[Any]) -> None:
    """Prepare a new connection for use."""
    await connection.set_type_codec(
        "text", schema="pg_catalog", encoder=escape_text, decoder=unescape_text, format="text"
    )


async def connect(url: str) -> asyncpg.Connection[Any]:
    """A connection that writes; raises `LOST` or `asyncpg.PostgresError`."""
    connection = await asyncpg.connect(
        url, timeout=_CONNECT_SECONDS, statement_cache_size=_CACHED_STATEMENTS, server_settings=_SETTINGS
    )
    await set_up(connection)
    return connection


async def create_reader_pool(url: str, size: int) -> asyncpg.Pool[Any]:
    """Connections that can only read; raises `LOST` or `asyncpg.PostgresError`."""
    pool = asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        init=set_up,
        reset=_leave_as_it_is,
        timeout=_CONNECT_SECONDS,
        statement_cache_size=_CACHED_STATEMENTS,
        server_settings={**_SETTINGS, "default_transaction_read_only": "on"},
    )
    await pool
    return pool


async def _leave_as_it_is(connection: asyncpg.Connection[Any]) -> None:
    """Readers set nothing that would have to be taken back, which saves a question for every question."""


async def answer(
    connection: asyncpg.Connection[Any] | PoolConnectionProxy[Any], sql: str, question: Awaitable[T]
) -> T:
    """Await the answer to a statement, and name the statement in the log if it was slow.

    Raises `DatabaseUnavailable` if the connection is lost, or `asyncpg.PostgresError`.
    """
    started = time.perf_counter()
    try:
        return await question
    except LOST as error:
        raise unavailable(error) from error
    except asyncpg.InterfaceError as error:
        # Also raised for arguments that do not fit.
        if connection.is_closed():
            raise unavailable(error) from error
        raise
    finally:
        seconds = time.perf_counter() - started
        if seconds > SLOW_SECONDS:
            _log.warning("slow_query", sql=sql, seconds=round(seconds, 3))
