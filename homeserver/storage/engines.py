"""Opens the database that an address names, on whichever engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from homeserver.storage.errors import DatabaseRefused
from homeserver.storage.postgres import PostgresDatabase
from homeserver.storage.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.storage.database import Database

_POSTGRESQL = ("postgresql://", "postgres://")
_SQLITE = "sqlite:///"


async def open_database(url: str, server_name: str, clock: Clock, *, directory: Path) -> Database:
    """Open `sqlite:///relative`, `sqlite:////absolute` or `postgresql://user:password@host/name`.

    A relative path is relative to `directory`. Brings the schema up to date; raises `DatabaseRefused`.
    """
    if url.startswith(_POSTGRESQL):
        return await PostgresDatabase.open(url, server_name, clock)
    if url.startswith(_SQLITE) and url != _SQLITE:
        return await SqliteDatabase.open(directory / Path(url.removeprefix(_SQLITE)), server_name, clock)
    message = "database.url must be sqlite:///relative/path, sqlite:////absolute/path or postgresql://user:password@host/name"
    raise DatabaseRefused(message)
