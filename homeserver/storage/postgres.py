"""The database on PostgreSQL: several processes read and write it, all see one order.

A transaction that writes holds one advisory lock from its beginning to its commit, so the writes of all processes
come one after the other, as on SQLite: positions grow in the order of the commits, no deadlock is possible, and
what a work has read is still true when it writes. Each process commits many works at a time, which is what makes
that fast. Reading waits for nobody.

What the commits of other processes announce stands in a table; that there is something new, NOTIFY tells.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg

from homeserver.storage.announcements import Announcement
from homeserver.storage.database import Database, Reader, Row, Transaction
from homeserver.storage.dialect import arguments_for_postgres, schema_for_postgres
from homeserver.storage.errors import DatabaseRefused, DatabaseUnavailable
from homeserver.storage.migrations import MIGRATIONS
from homeserver.storage.postgres_connection import LOST, answer, connect, create_reader_pool, unavailable
from homeserver.storage.postgres_news import CHANNEL, FellBehind, News, read_news
from homeserver.storage.schema import SchemaDialect, bring_up_to_date

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpg.pool import PoolConnectionProxy

    from homeserver.clock import Clock
    from homeserver.storage.migrations.migration import Migration

    PooledConnection = PoolConnectionProxy[Any]

_READERS = 8
_OLDEST = 13
_LOCK = 0x52657374
"""The number of the advisory lock of whoever writes."""
# The whole program stops in five, and its listeners take three of them.
_CLOSE_SECONDS = 1.5
_TABLE_NAMES = "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = current_schema()"
_SCHEMA = SchemaDialect(_TABLE_NAMES, schema_for_postgres, lambda migration: migration.postgres_only)


class _PostgresReader(Reader):
    def __init__(self, connection: asyncpg.Connection[Any] | PooledConnection) -> None:
        self._connection = connection

    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        question = self._connection.fetch(sql, *arguments_for_postgres(arguments))
        records = await answer(self._connection, sql, question)
        return [tuple(record) for record in records]


class _PostgresTransaction(Transaction):
    def __init__(self, database: PostgresDatabase, connection: asyncpg.Connection[Any]) -> None:
        super().__init__()
        self._database = database
        self.connection = connection
        self._reader = _PostgresReader(connection)
        self.position: int | None = None
        """The last position taken, if any was."""

    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        return await self._reader.fetch_all(sql, *arguments)

    async def execute(self, sql: str, *arguments: Any) -> int:
        question = self.connection.execute(sql, *arguments_for_postgres(arguments))
        tag = await answer(self.connection, sql, question)
        # "INSERT 0 3", "UPDATE 3", "CREATE TABLE"
        changed = tag.rpartition(" ")[2]
        return int(changed) if changed.isdecimal() else 0

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if len(rows) == 1:
            await answer(self.connection, sql, self.connection.execute(sql, *rows[0]))
        elif rows:
            await answer(self.connection, sql, self.connection.executemany(sql, rows))

    async def next_position(self) -> int:
        if self.position is None:
            self.position = await self._database.catch_up(self.connection)
        self.position += 1
        return self.position

    async def flush(self) -> None:
        """Nothing is put off."""


class PostgresDatabase(Database):
    """A database that several processes share."""

    is_shared = True

    def __init__(
        self, clock: Clock, url: str, writer: asyncpg.Connection[Any], readers: asyncpg.Pool[Any]
    ) -> None:
        super().__init__(clock)
        self._url = url
        self._writer = writer
        self._readers = readers
        self._news = News(url, clock, hear=self._hear, is_own=self._is_own_process, fell_behind=self._fail)
        self._failure: FellBehind | None = None
        # Held while `position` moves: announcements are handed on in their order.
        self._delivery = asyncio.Lock()

    @classmethod
    async def open(
        cls, url: str, server_name: str, clock: Clock, migrations: Sequence[Migration] = MIGRATIONS
    ) -> PostgresDatabase:
        """Connect, and bring the schema up to date. Raises `DatabaseRefused`."""
        try:
            writer = await connect(url)
            try:
                readers = await create_reader_pool(url, _READERS)
            except BaseException:
                await writer.close()
                raise
        except (*LOST, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise _refusal(url, error) from error
        database = cls(clock, url, writer, readers)
        try:
            await database._prepare(server_name, migrations)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            await database.close()
            raise _refusal(url, error) from error
        except BaseException:
            await database.close()
            raise
        return database

    async def _prepare(self, server_name: str, migrations: Sequence[Migration]) -> None:
        if self._writer.get_server_version().major < _OLDEST:
            message = f"this PostgreSQL is too old: {_OLDEST} or later is needed"
            raise DatabaseRefused(message)
        if await self._writer.fetchval("SHOW server_encoding") != "UTF8":
            message = "the PostgreSQL database must have the encoding UTF8: create it with ENCODING 'UTF8'"
            raise DatabaseRefused(message)

        @asynccontextmanager
        async def begin() -> AsyncIterator[Transaction]:
            transaction = await self._begin()
            try:
                yield transaction
                await self._end(transaction, "COMMIT")
            except BaseException:
                await self._roll_back(transaction)
                raise

        self.epoch = await bring_up_to_date(
            begin, _SCHEMA, migrations, server_name=server_name, now_ms=self._clock.now_ms()
        )
        self.position = await self._writer.fetchval("SELECT position FROM log_position")
        self._news.start()

    # -- reading ---------------------------------------------------------------------------------------

    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        async with self._reader() as connection:
            return await _PostgresReader(connection).fetch_all(sql, *arguments)

    async def fetch_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> list[Row]:
        if not rows:
            return []
        async with self._reader() as connection:
            question = connection.fetchmany(sql, [arguments_for_postgres(row) for row in rows])
            return [tuple(record) for record in await answer(connection, sql, question)]

    async def reach(self, position: int) -> bool:
        if position > self.position:
            async with self._reader() as connection:
                await self.catch_up(connection)
        return position <= self.position

    async def table_names(self) -> set[str]:
        return {name for (name,) in await self.fetch_all(_TABLE_NAMES)}

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[PooledConnection]:
        self._check_usable()
        try:
            connection = await self._readers.acquire()
        except LOST as error:
            raise unavailable(error) from error
        try:
            yield connection
        finally:
            await self._readers.release(connection)

    # -- writing ---------------------------------------------------------------------------------------

    async def _begin(self) -> _PostgresTransaction:
        try:
            if self._writer.is_closed():
                self._writer = await connect(self._url)
            await self._writer.execute(f"BEGIN; SELECT pg_advisory_xact_lock({_LOCK})")
        except (*LOST, asyncpg.InterfaceError) as error:
            self._writer.terminate()
            raise unavailable(error) from error
        return _PostgresTransaction(self, self._writer)

    async def _commit(self, transaction: Transaction) -> None:
        assert isinstance(transaction, _PostgresTransaction)
        if transaction.announced and transaction.position is None:
            await transaction.next_position()
        position = transaction.position
        if position is None:
            await self._end(transaction, "COMMIT")
            self._committed(transaction)
            return
        if transaction.announced:
            await transaction.execute(
                "INSERT INTO announcements (position, topic, key, created_ts)"
                " SELECT $1, said.topic, said.key, $4 FROM unnest($2::text[], $3::text[]) AS said (topic, key)",
                position,
                [topic for topic, _ in transaction.announced],
                [key for _, key in transaction.announced],
                self._clock.now_ms(),
            )
        async with self._delivery:
            await self._end(
                transaction,
                f"UPDATE log_position SET position = {position}; NOTIFY {CHANNEL}, '{position}'; COMMIT",
            )
            self._committed(transaction)
            self._deliver(
                position,
                [Announcement(position, topic, key, local=True) for topic, key in transaction.announced],
            )

    async def _end(self, transaction: Transaction, sql: str) -> None:
        assert isinstance(transaction, _PostgresTransaction)
        await answer(transaction.connection, sql, transaction.connection.execute(sql))

    async def _roll_back(self, transaction: Transaction) -> None:
        assert isinstance(transaction, _PostgresTransaction)
        try:
            await transaction.connection.execute("ROLLBACK")
        except (*LOST, asyncpg.InterfaceError, asyncpg.PostgresError):
            # PostgreSQL rolls back what has no connection any more.
            transaction.connection.terminate()

    # -- what other processes write --------------------------------------------------------------------

    def _is_own_process(self, process: int) -> bool:
        return not self._writer.is_closed() and process == self._writer.get_server_pid()

    def _fail(self, failure: FellBehind) -> None:
        self._failure = failure

    def _check_usable(self) -> None:
        super()._check_usable()
        if self._failure is not None:
            raise self._failure

    async def _hear(self, connection: asyncpg.Connection[Any]) -> None:
        await self.catch_up(connection)

    async def catch_up(self, connection: asyncpg.Connection[Any] | PooledConnection) -> int:
        """Hand on what other processes have announced; the answer is the last committed position.

        A transaction that writes does so before it takes its first position, so that between what others have
        committed and its own commit nothing is left out.
        """
        async with self._delivery:
            news = await read_news(connection, self.position)
            for position, announcements in news.commits:
                self._deliver(position, announcements)
            if news.position > self.position:
                self._deliver(news.position, [])
            return news.position

    async def _disconnect(self) -> None:
        await self._news.stop()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._readers.close()
                await self._writer.close()
        except (*LOST, asyncpg.InterfaceError):
            self._readers.terminate()
            self._writer.terminate()


def _refusal(url: str, error: Exception) -> DatabaseRefused:
    # The address without the password.
    try:
        parts = urlsplit(url)
    except ValueError:
        return DatabaseRefused("this is not an address: write postgresql://user:password@host/name")
    return DatabaseRefused(
        f"the database {parts.path.lstrip('/')} on {parts.hostname or 'this machine'} cannot be used: {error}"
    )
