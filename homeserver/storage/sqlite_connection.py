"""A connection to SQLite that runs several statements in one visit to its thread.

Every call of aiosqlite hands a function to the thread of the connection and waits for the answer, which costs more
than a small statement itself. So what is to be run together is handed over together, as a `Script`.
"""

from __future__ import annotations

import sqlite3
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, NamedTuple

import aiosqlite
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SLOW_SECONDS = 1.0
"""A statement that takes longer is named in the log."""
_CACHED_STATEMENTS = 512

_log = structlog.get_logger(__name__)


class Kind(Enum):
    """What is asked of a statement."""

    FETCH = auto()
    """Its rows."""
    FETCH_MANY = auto()
    """The rows of all answers; its arguments are a sequence of rows of arguments."""
    EXECUTE = auto()
    """How many rows it changed."""
    EXECUTE_MANY = auto()
    """Nothing; its arguments are a sequence of rows of arguments."""


class Statement(NamedTuple):
    """One statement with its arguments."""

    kind: Kind
    sql: str
    arguments: Sequence[Any] = ()


class Script:
    """Statements to run one after the other, and the answer to the last of them."""

    __slots__ = ("answer", "statements")

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.answer: Any = None


class _ScriptConnection(sqlite3.Connection):
    """A connection whose `executescript` also takes a `Script`."""

    def executescript(self, script: str | Script, /) -> sqlite3.Cursor:
        if isinstance(script, str):
            return super().executescript(script)
        cursor = self.cursor()
        for kind, sql, arguments in script.statements:
            started = time.perf_counter()
            if kind is Kind.EXECUTE_MANY:
                cursor.executemany(sql, arguments)
            elif kind is Kind.FETCH_MANY:
                script.answer = [row for some in arguments for row in cursor.execute(sql, some).fetchall()]
            else:
                cursor.execute(sql, arguments)
                script.answer = cursor.fetchall() if kind is Kind.FETCH else cursor.rowcount
            seconds = time.perf_counter() - started
            if seconds > SLOW_SECONDS:
                _log.warning("slow_query", sql=sql, seconds=round(seconds, 3))
        return cursor


class SqliteConnection:
    """One connection with its thread. Calls may overlap: they are run one after the other."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, location: str, pragmas: Iterable[str]) -> SqliteConnection:
        """Open a file by its URI and set what the pragmas say; raises `sqlite3.Error`."""
        connection = await aiosqlite.connect(
            location,
            uri=True,
            # BEGIN and COMMIT are written out, nothing is begun behind our back.
            isolation_level=None,
            cached_statements=_CACHED_STATEMENTS,
            factory=_ScriptConnection,
        )
        opened = cls(connection)
        try:
            await opened.run([Statement(Kind.FETCH, f"PRAGMA {pragma}") for pragma in pragmas])
        except BaseException:
            await connection.close()
            raise
        return opened

    async def run(self, statements: Sequence[Statement]) -> Any:
        """Run statements one after the other up to the first that fails, and give the answer to the last.

        The thread runs them to the end even if the caller is cancelled.
        """
        script = Script(statements)
        await self._connection.executescript(script)
        return script.answer

    async def roll_back(self) -> None:
        """End the open transaction without a trace; does nothing where there is none."""
        await self._connection.rollback()

    async def close(self) -> None:
        """Wait for what is under way, and close."""
        await self._connection.close()
