"""Brings the schema of a database up to date, after making sure that it is ours to touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.storage.errors import DatabaseRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from homeserver.storage.database import Transaction
    from homeserver.storage.migrations.migration import Migration

_FIRST_EPOCH = 1
_IDENTITY = (
    """
    CREATE TABLE schema_migrations (
        number BIGINT PRIMARY KEY,
        description TEXT NOT NULL,
        applied_ts BIGINT NOT NULL
    )
    """,
    "CREATE TABLE server (server_name TEXT NOT NULL, epoch BIGINT NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class SchemaDialect:
    """What differs between the engines."""

    table_names: str
    """The query for the names of the tables."""
    rewrite: Callable[[str], str]
    """Makes a statement of a migration one of the engine."""
    own_statements: Callable[[Migration], Sequence[str]]
    """The statements of a migration that are for this engine only."""


async def bring_up_to_date(
    begin: Callable[[], AbstractAsyncContextManager[Transaction]],
    dialect: SchemaDialect,
    migrations: Sequence[Migration],
    *,
    server_name: str,
    now_ms: int,
) -> int:
    """Run the migrations that are missing, each in a transaction of its own; the answer is the epoch.

    `begin` gives transactions that keep other processes out until they are committed. Raises `DatabaseRefused`
    for a database of another program, of another server, or of a newer Restante, and leaves it as it was.
    """
    async with begin() as transaction:
        tables = {name for (name,) in await transaction.fetch_all(dialect.table_names)}
        if not tables:
            for statement in _IDENTITY:
                await transaction.execute(dialect.rewrite(statement))
            await transaction.execute(
                "INSERT INTO server (server_name, epoch) VALUES ($1, $2)", server_name, _FIRST_EPOCH
            )
        elif not {"schema_migrations", "server"} <= tables:
            message = "the database holds the tables of another program: give Restante an empty one"
            raise DatabaseRefused(message)
        epoch = await _check_owner(transaction, server_name)
        await _migrated_upto(transaction, migrations)
    for migration in migrations:
        async with begin() as transaction:
            # Asked each time: another process may be doing the same.
            if await _migrated_upto(transaction, migrations) < migration.number:
                await _migrate(transaction, dialect, migration, now_ms)
    return epoch


async def _check_owner(transaction: Transaction, server_name: str) -> int:
    ((owner, epoch),) = await transaction.fetch_all("SELECT server_name, epoch FROM server")
    if owner != server_name:
        message = (
            f"the database belongs to the server {owner}, not to {server_name}:"
            " correct server_name, or use another database"
        )
        raise DatabaseRefused(message)
    return int(epoch)


async def _migrated_upto(transaction: Transaction, migrations: Sequence[Migration]) -> int:
    done = await transaction.fetch_value("SELECT max(number) FROM schema_migrations") or 0
    newest = migrations[-1].number
    if done > newest:
        message = (
            f"the database has schema {done}, but this program knows none after {newest}:"
            " a newer Restante has used it, run that one"
        )
        raise DatabaseRefused(message)
    return int(done)


async def _migrate(
    transaction: Transaction, dialect: SchemaDialect, migration: Migration, now_ms: int
) -> None:
    for statement in (*migration.statements, *dialect.own_statements(migration)):
        await transaction.execute(dialect.rewrite(statement))
    await transaction.execute(
        "INSERT INTO schema_migrations (number, description, applied_ts) VALUES ($1, $2, $3)",
        migration.number,
        migration.description,
        now_ms,
    )
