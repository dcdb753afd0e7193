"""The database on SQLite: one writing connection, several that read, in one process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from homeserver.storage.announcements import Announcement
from homeserver.storage.database import Database, Reader, Row, Transaction
from homeserver.storage.dialect import arguments_for_sqlite, for_sqlite, schema_for_sqlite
from homeserver.storage.errors import DatabaseLocked, DatabaseRefused
from homeserver.storage.migrations import MIGRATIONS
from homeserver.storage.schema import SchemaDialect, bring_up_to_date
from homeserver.storage.sqlite_connection import Kind, SqliteConnection, Statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from homeserver.clock import Clock
    from homeserver.storage.migrations.migration import Migration

_READERS = 4
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_OWNER_ONLY = 0o600
_OLDEST = (3, 37, 0)
"""The first SQLite with STRICT tables."""
_COMMON_PRAGMAS = (
    "foreign_keys = ON",
    "temp_store = MEMORY",
    # As PostgreSQL compares.
    "case_sensitive_like = ON",
)
_WRITER_PRAGMAS = (
    "page_size = 4096",
    "journal_mode = WAL",
    # An answered send survives a power cut; commits in groups make that cheap.
    "synchronous = FULL",
    # Pages, so 2 MiB; what a long read makes it grow beyond is cut off again.
    "wal_autocheckpoint = 500",
    "journal_size_limit = 2097152",
    "cache_size = -8192",
    *_COMMON_PRAGMAS,
)
_READER_PRAGMAS = ("query_only = ON", "cache_size = -4096", *_COMMON_PRAGMAS)

_BEGIN = Statement(Kind.EXECUTE, "BEGIN IMMEDIATE")
_COMMIT = Statement(Kind.EXECUTE, "COMMIT")
_TABLE_NAMES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
_SCHEMA = SchemaDialect(_TABLE_NAMES, schema_for_sqlite, lambda migration: migration.sqlite_only)


class _SqliteTransaction(Transaction):
    """Puts off what has no answer until something is asked, or the commit: each visit to the thread costs."""

    def __init__(self, connection: SqliteConnection, position: int) -> None:
        super().__init__()
        self._connection = connection
        self._put_off: list[Statement] = [_BEGIN]
        self._begun = False
        self.position = position

    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        return cast("list[Row]", await self._run(Kind.FETCH, sql, arguments))

    async def execute(self, sql: str, *arguments: Any) -> int:
        return cast("int", await self._run(Kind.EXECUTE, sql, arguments))

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            # A copy: the caller may go on to use the list before it is run.
            arguments = [arguments_for_sqlite(row) for row in rows]
            self._put_off.append(Statement(Kind.EXECUTE_MANY, for_sqlite(sql), arguments))

    async def next_position(self) -> int:
        self.position += 1
        return self.position

    async def flush(self) -> None:
        if len(self._put_off) > (0 if self._begun else 1):
            await self._connection.run(self._take())

    async def commit(self, last: Sequence[Statement] = ()) -> None:
        """Run what was put off, then `last`, and commit; all in one visit."""
        self._put_off.extend(last)
        # A transaction that was never begun need not be ended.
        if self._begun or len(self._put_off) > 1:
            await self._connection.run([*self._take(), _COMMIT])

    async def _run(self, kind: Kind, sql: str, arguments: Sequence[Any]) -> Any:
        self._put_off.append(Statement(kind, for_sqlite(sql), arguments_for_sqlite(arguments)))
        return await self._connection.run(self._take())

    def _take(self) -> list[Statement]:
        self._begun = True
        statements, self._put_off = self._put_off, []
        return statements


class _SqliteReader(Reader):
    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection

    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        statement = Statement(Kind.FETCH, for_sqlite(sql), arguments_for_sqlite(arguments))
        return cast("list[Row]", await self._connection.run([statement]))


class SqliteDatabase(Database):
    """A database in one file."""

    def __init__(self, clock: Clock, writer: SqliteConnection, lock: int) -> None:
        super().__init__(clock)
        self._writer = writer
        self._readers: list[SqliteConnection] = []
        # The one that was used last comes first: what it has in memory is the most useful.
        self._free: asyncio.LifoQueue[SqliteConnection] = asyncio.LifoQueue()
        self._lock = lock
        self._taken = 0

    @classmethod
    async def open(
        cls, path: Path, server_name: str, clock: Clock, migrations: Sequence[Migration] = MIGRATIONS
    ) -> SqliteDatabase:
        """Open the file, or make it, and bring its schema up to date.

        Raises `DatabaseRefused`; `DatabaseLocked` where another process has opened it.
        """
        if sqlite3.sqlite_version_info < _OLDEST:
            message = (
                f"SQLite {sqlite3.sqlite_version} is too old: Python needs to be built with 3.37 or later"
            )
            raise DatabaseRefused(message)
        lock = _lock(path)
        location = _location(path)
        try:
            # Made here, for the owner only: it holds what people write, and SQLite would let everybody read it.
            os.close(os.open(path, _OPEN_FLAGS, _OWNER_ONLY))
            writer = await SqliteConnection.open(location, _WRITER_PRAGMAS)
        except (OSError, sqlite3.Error) as error:
            os.close(lock)
            raise _refusal(path, error) from error
        database = cls(clock, writer, lock)
        try:
            await database._prepare(server_name, migrations)
            for _ in range(_READERS):
                reader = await SqliteConnection.open(f"{location}?mode=ro", _READER_PRAGMAS)
                database._readers.append(reader)
                database._free.put_nowait(reader)
        except sqlite3.Error as error:
            await database.close()
            raise _refusal(path, error) from error
        except BaseException:
            await database.close()
            raise
        return database

    async def _prepare(self, server_name: str, migrations: Sequence[Migration]) -> None:
        @asynccontextmanager
        async def begin() -> AsyncIterator[Transaction]:
            transaction = await self._begin()
            try:
                yield transaction
                await transaction.commit()
            except BaseException:
                await self._roll_back(transaction)
                raise

        self.epoch = await bring_up_to_date(
            begin, _SCHEMA, migrations, server_name=server_name, now_ms=self._clock.now_ms()
        )
        position = Statement(Kind.FETCH, "SELECT position FROM log_position")
        ((self._taken,),) = await self._writer.run([position])
        self.position = self._taken

    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        async with self._reader() as connection:
            return await _SqliteReader(connection).fetch_all(sql, *arguments)

    async def fetch_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[Row]:
        arguments = [arguments_for_sqlite(row) for row in rows]
        async with self._reader() as connection:
            answer = await connection.run([Statement(Kind.FETCH_MANY, for_sqlite(sql), arguments)])
        return cast("list[Row]", answer)

    async def table_names(self) -> set[str]:
        return {name for (name,) in await self.fetch_all(_TABLE_NAMES)}

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[SqliteConnection]:
        self._check_usable()
        connection = await self._free.get()
        try:
            self._check_usable()
            yield connection
        finally:
            # Where the caller was cancelled its question may still be under way; the next one waits behind it.
            self._free.put_nowait(connection)

    async def _begin(self) -> _SqliteTransaction:
        return _SqliteTransaction(self._writer, self._taken)

    async def _commit(self, transaction: Transaction) -> None:
        assert isinstance(transaction, _SqliteTransaction)
        if transaction.announced and transaction.position == self._taken:
            await transaction.next_position()
        moved = transaction.position != self._taken
        position = self._taken = transaction.position
        await transaction.commit(
            [Statement(Kind.EXECUTE, "UPDATE log_position SET position = ?1", (position,))] if moved else ()
        )
        self._committed(transaction)
        if moved:
            self._deliver(
                position,
                [Announcement(position, topic, key, local=True) for topic, key in transaction.announced],
            )

    async def _roll_back(self, transaction: Transaction) -> None:  # noqa: ARG002 - there is one at a time
        await self._writer.roll_back()

    async def _disconnect(self) -> None:
        for reader in self._readers:
            await reader.close()
        await self._writer.close()
        os.close(self._lock)


def _refusal(path: Path, error: Exception) -> DatabaseRefused:
    return DatabaseRefused(f"the database {path} cannot be used: {error}")


def _location(path: Path) -> str:
    return path.absolute().as_uri()


def _lock(path: Path) -> int:
    """Keep other processes out for as long as the returned file is open; it is closed with the process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", _OPEN_FLAGS, _OWNER_ONLY)
    except OSError as error:
        raise _refusal(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        message = (
            f"another process uses the database {path}:"
            " stop it first, or use PostgreSQL, which serves several processes"
        )
        raise DatabaseLocked(message) from error
    return lock
