"""The database on SQLite: one writing connection, several that read, in one process."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import aiosqlite
import orjson

from homeserver.storage.announcements import Announcement
from homeserver.storage.database import Database, DatabaseClosed, DatabaseRefused, Row, Transaction
from homeserver.storage.dialect import for_sqlite, schema_for_sqlite
from homeserver.storage.migrations import MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

_READERS = 4
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    # An answered send survives a power cut; commits in groups make that cheap.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA wal_autocheckpoint = 500",
    "PRAGMA journal_size_limit = 2097152",
    "PRAGMA cache_size = -8192",
)


def _arguments(arguments: Sequence[Any]) -> list[Any]:
    return [orjson.dumps(value).decode() if isinstance(value, list) else value for value in arguments]


class _SqliteTransaction(Transaction):
    def __init__(self, connection: aiosqlite.Connection, position: int) -> None:
        super().__init__()
        self._connection = connection
        self.position = position

    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        return list(await self._connection.execute_fetchall(for_sqlite(sql), _arguments(arguments)))  # type: ignore[arg-type]

    async def execute(self, sql: str, *arguments: Any) -> int:
        cursor = await self._connection.execute(for_sqlite(sql), _arguments(arguments))
        changed = cursor.rowcount
        await cursor.close()
        return changed

    async def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            await self._connection.executemany(for_sqlite(sql), rows)

    async def next_position(self) -> int:
        self.position += 1
        return self.position


class SqliteDatabase(Database):
    """A database in one file."""

    def __init__(self, writer: aiosqlite.Connection, readers: list[aiosqlite.Connection], lock: int) -> None:
        super().__init__()
        self._connection = writer
        self._readers = readers
        self._free: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        for reader in readers:
            self._free.put_nowait(reader)
        self._lock = lock
        self._taken = 0
        self._closed = False

    @classmethod
    async def open(cls, path: Path, server_name: str) -> SqliteDatabase:
        """Open the file, or make it, and bring its schema up to date; raises `DatabaseRefused`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        writer = None
        try:
            writer = await aiosqlite.connect(path, isolation_level=None)
            for pragma in _PRAGMAS:
                await writer.execute(pragma)
            await _migrate(writer, server_name)
            readers = []
            for _ in range(_READERS):
                reader = await aiosqlite.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
                await reader.execute("PRAGMA query_only = ON")
                await reader.execute("PRAGMA cache_size = -4096")
                readers.append(reader)
        except (sqlite3.Error, DatabaseRefused) as error:
            if writer is not None:
                await writer.close()
            os.close(lock)
            if isinstance(error, DatabaseRefused):
                raise
            message = f"the database {path} cannot be used: {error}"
            raise DatabaseRefused(message) from error
        database = cls(writer, readers, lock)
        ((position,),) = await writer.execute_fetchall("SELECT position FROM log_position")
        ((database.epoch,),) = await writer.execute_fetchall("SELECT epoch FROM server")
        database.position = database._taken = position
        database.start_writer()
        return database

    async def fetch_all(self, sql: str, *arguments: Any) -> list[Row]:
        if self._closed:
            raise DatabaseClosed
        reader = await self._free.get()
        try:
            # Shielded: a connection goes back only when its thread is done with the question.
            question = asyncio.ensure_future(reader.execute_fetchall(for_sqlite(sql), _arguments(arguments)))
            return list(await asyncio.shield(question))  # type: ignore[arg-type]
        finally:
            self._free.put_nowait(reader)

    async def commit_group(self, works: Sequence[Callable[[Transaction], Awaitable[Any]]]) -> list[Any]:
        transaction = _SqliteTransaction(self._connection, self._taken)
        await self._connection.execute("BEGIN IMMEDIATE")
        try:
            results = [await work(transaction) for work in works]
            if transaction.position != self._taken:
                await self._connection.execute("UPDATE log_position SET position = ?1", (transaction.position,))
            await self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                await self._connection.execute("ROLLBACK")
            raise
        self._taken = transaction.position
        self.committed(
            transaction,
            self._taken,
            [Announcement(self._taken, topic, key, local=True) for topic, key in transaction.announced],
        )
        return results

    async def close(self) -> None:
        if self._closed:
            return
        await self.stop_writer()
        self._closed = True
        for reader in self._readers:
            await reader.close()
        await self._connection.close()
        os.close(self._lock)


def _lock(path: Path) -> int:
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        message = f"another process uses the database {path}: stop it first, or use PostgreSQL for several processes"
        raise DatabaseRefused(message) from error
    return lock


async def _migrate(connection: aiosqlite.Connection, server_name: str) -> None:
    await connection.execute("BEGIN IMMEDIATE")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (number INTEGER PRIMARY KEY, description TEXT NOT NULL)"
    )
    await connection.execute("COMMIT")
    rows = await connection.execute_fetchall("SELECT max(number) FROM schema_migrations")
    done = next(iter(rows))[0] or 0
    if done > MIGRATIONS[-1].number:
        message = (
            f"the database has schema {done}, this program knows {MIGRATIONS[-1].number} at most: run a newer Restante"
        )
        raise DatabaseRefused(message)
    for migration in MIGRATIONS[done:]:
        await connection.execute("BEGIN IMMEDIATE")
        for statement in migration.statements:
            await connection.execute(schema_for_sqlite(statement))
        await connection.execute(
            "INSERT INTO schema_migrations (number, description) VALUES (?1, ?2)",
            (migration.number, migration.description),
        )
        if migration.number == 1:
            await connection.execute("INSERT INTO server (server_name, epoch) VALUES (?1, 1)", (server_name,))
        await connection.execute("COMMIT")
    ((owner,),) = await connection.execute_fetchall("SELECT server_name FROM server")
    if owner != server_name:
        message = f"the database belongs to the server {owner}: set server_name to that, or use another database"
        raise DatabaseRefused(message)
