"""Whose database may be opened, and how its schema comes up to date: whole, once, or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.clock import Clock
from homeserver.storage.engines import open_database
from homeserver.storage.errors import DatabaseLocked, DatabaseRefused
from homeserver.storage.migrations import MIGRATIONS
from homeserver.storage.migrations.migration import Migration
from homeserver.storage.postgres import PostgresDatabase
from homeserver.storage.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from homeserver.storage.database import Database
    from tests.postgresql import Cluster

NEWEST = MIGRATIONS[-1].number


@pytest.fixture
async def empty_url(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a database without any tables."""
    if engine == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    cluster: Cluster = request.getfixturevalue("postgresql")
    name = await cluster.create_database()
    yield cluster.url(name)
    await cluster.drop_database(name)


async def opened(
    url: str, server_name: str = "example.org", migrations: Sequence[Migration] = MIGRATIONS
) -> Database:
    if url.startswith("postgresql:"):
        return await PostgresDatabase.open(url, server_name, Clock(), migrations)
    return await SqliteDatabase.open(Path(url.removeprefix("sqlite:///")), server_name, Clock(), migrations)


async def change(url: str, *statements: str) -> None:
    """Change a database behind the program's back."""
    database = await opened(url)

    async def work(transaction: Any) -> None:
        for statement in statements:
            await transaction.execute(statement)

    await database.write(work)
    await database.close()


async def test_the_schema_is_made_once_and_found_again(empty_url: str) -> None:
    first = await opened(empty_url)
    tables, epoch = await first.table_names(), first.epoch
    await first.close()
    again = await opened(empty_url)
    assert await again.table_names() == tables
    assert again.epoch == epoch
    assert await again.fetch_value("SELECT count(*) FROM schema_migrations") == len(MIGRATIONS), (
        "every migration is run once"
    )
    await again.close()


async def test_the_position_is_found_again(empty_url: str) -> None:
    first = await opened(empty_url)
    await first.write(lambda t: t.next_position())
    position = first.position
    assert position
    await first.close()
    again = await opened(empty_url)
    assert again.position == position
    assert await again.write(lambda t: t.next_position()) > position
    await again.close()


async def test_the_database_of_another_server_is_refused(empty_url: str) -> None:
    await (await opened(empty_url)).close()
    with pytest.raises(DatabaseRefused, match=r"belongs to the server example\.org, not to other\.example"):
        await opened(empty_url, "other.example")
    await (await opened(empty_url)).close()


async def test_a_database_of_a_newer_program_is_refused(empty_url: str) -> None:
    await change(
        empty_url,
        "INSERT INTO schema_migrations (number, description, applied_ts)"
        f" VALUES ({NEWEST + 1}, 'of tomorrow', 0)",
    )
    with pytest.raises(
        DatabaseRefused, match=f"schema {NEWEST + 1}, but this program knows none after {NEWEST}"
    ):
        await opened(empty_url)


async def test_the_tables_of_another_program_are_refused_and_left_alone(empty_url: str) -> None:
    await change(
        empty_url, "DROP TABLE schema_migrations", "DROP TABLE server", "CREATE TABLE things (name TEXT)"
    )
    for _ in range(2):
        with pytest.raises(DatabaseRefused, match="tables of another program"):
            await opened(empty_url)


async def test_a_migration_that_fails_leaves_no_trace_and_is_run_the_next_time(empty_url: str) -> None:
    good = Migration(NEWEST + 1, "things", ("CREATE TABLE things (name TEXT NOT NULL)",))
    bad = replace(good, statements=(*good.statements, "INSERT INTO nowhere VALUES (1)"))
    await (await opened(empty_url)).close()
    with pytest.raises(DatabaseRefused):
        await opened(empty_url, migrations=(*MIGRATIONS, bad))
    database = await opened(empty_url)
    assert "things" not in await database.table_names()
    await database.close()
    database = await opened(empty_url, migrations=(*MIGRATIONS, good))
    assert "things" in await database.table_names()
    await database.close()


async def test_migrations_are_numbered_in_their_order() -> None:
    assert [migration.number for migration in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))


async def test_processes_that_start_at_the_same_time_make_one_schema(postgresql: Cluster) -> None:
    name = await postgresql.create_database()
    databases = await asyncio.gather(*(opened(postgresql.url(name)) for _ in range(4)))
    assert len({database.epoch for database in databases}) == 1
    assert await databases[0].fetch_value("SELECT count(*) FROM schema_migrations") == len(MIGRATIONS)
    assert await databases[0].fetch_value("SELECT count(*) FROM server") == 1
    await asyncio.gather(*(database.close() for database in databases))
    await postgresql.drop_database(name)


async def test_a_sqlite_file_is_for_one_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/restante.db"
    first = await opened(url)
    with pytest.raises(DatabaseLocked, match="another process uses the database"):
        await opened(url)
    await first.close()
    await (await opened(url)).close()


@pytest.mark.parametrize(
    ("name", "content"), [("text", b"this is no database, whatever it is called"), ("directory", None)]
)
async def test_what_is_no_database_is_refused_in_a_sentence(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content * 100)
    with pytest.raises(DatabaseRefused, match=f"the database .*{name} cannot be used"):
        await open_database(f"sqlite:///{path}", "example.org", Clock(), directory=tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/restante",
        "sqlite:///",
        "sqlite://restante.db",
        "restante.db",
        "",
    ],
)
async def test_other_addresses_are_refused_with_the_ones_that_can_be(tmp_path: Path, url: str) -> None:
    with pytest.raises(DatabaseRefused, match="must be sqlite:///relative/path"):
        await open_database(url, "example.org", Clock(), directory=tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://somebody:secret@127.0.0.1:1/restante",
        "postgresql://somebody:secret@[/restante",
        "postgresql://somebody:secret@127.0.0.1:port/restante",
        "postgresql://somebody:secret@/restante?host=/nowhere",
    ],
)
async def test_a_postgresql_that_is_not_there_is_named_without_the_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(DatabaseRefused) as refused:
        await open_database(url, "example.org", Clock(), directory=tmp_path)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_relative_address_is_relative_to_the_directory(tmp_path: Path) -> None:
    database = await open_database("sqlite:///down/here.db", "example.org", Clock(), directory=tmp_path)
    await database.close()
    assert (tmp_path / "down" / "here.db").is_file()


async def test_a_sqlite_file_is_for_its_owner_only(tmp_path: Path) -> None:
    database = await opened(f"sqlite:///{tmp_path}/restante.db")
    await database.write(lambda t: t.next_position())
    modes = _modes(tmp_path)
    await database.close()
    assert "restante.db-wal" in modes
    assert set(modes.values()) == {0o600}


def _modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
