"""What tests of the whole tree share."""

from __future__ import annotations

import asyncio
import logging
import os
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from homeserver.clock import Clock
from homeserver.storage.engines import open_database
from homeserver.storage.postgres import PostgresDatabase
from tests.fresh_databases import FreshDatabases
from tests.postgresql import Cluster, find_programs
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from homeserver.storage.database import Database
    from tests.client import Client

    StartServer = Callable[..., Awaitable[Server]]

# A line for each request would be in the way of what a test shows when it fails.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))

SERVER_NAME = "example.org"

# PostgreSQL takes longer for all of these, and the statements are the same ones: of what the APIs promise every third
# is tried there each time, always the same ones, and all of it by `make soak`.
_MANY_ON_POSTGRESQL = ("tests/api/", "tests/federation_api/", "tests/inbound/test_lost_memberships.py")
_EVERY = 3


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_one_of_many = item.nodeid.startswith(_MANY_ON_POSTGRESQL) and "postgresql" in item.name
        if is_one_of_many and zlib.crc32(item.nodeid.encode()) % _EVERY:
            item.add_marker(pytest.mark.soak)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A running PostgreSQL. Without one the tests that need it are skipped, but never where `CI` is set."""
    programs = find_programs()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed")
    cluster = Cluster(programs)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def postgresql_databases(postgresql: Cluster, postgresql_template: str) -> FreshDatabases:
    """Databases with the schema in them, used by one test after the other."""
    return FreshDatabases(postgresql, postgresql_template)


@pytest.fixture(scope="session")
def postgresql_template(postgresql: Cluster) -> str:
    """The name of a database with the schema in it, to be copied."""

    async def prepare() -> str:
        name = await postgresql.create_database()
        database = await PostgresDatabase.open(postgresql.url(name), SERVER_NAME, Clock())
        await database.close()
        return name

    return asyncio.run(prepare())


@pytest.fixture
async def postgresql_url(postgresql: Cluster, postgresql_databases: FreshDatabases) -> AsyncIterator[str]:
    """The address of a fresh database on PostgreSQL, with the schema in it."""
    name = await postgresql_databases.take()
    yield postgresql.url(name)
    await postgresql_databases.give_back(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine; a test that uses it runs once for each."""
    return request.param


@pytest.fixture
def database_url(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a fresh database, once on each engine."""
    if engine == "postgresql":
        return request.getfixturevalue("postgresql_url")
    return f"sqlite:///{tmp_path}/restante.db"


@pytest.fixture
def cluster(engine: str, request: pytest.FixtureRequest) -> Cluster | None:
    """The PostgreSQL of the database at `database_url`, where it is on one."""
    return request.getfixturevalue("postgresql") if engine == "postgresql" else None


@pytest.fixture
async def empty_database_url(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[str]:
    """The address of a database without anything in it, for a server of any name; once on each engine."""
    if engine == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
        return
    cluster = request.getfixturevalue("postgresql")
    name = await cluster.create_database()
    yield cluster.url(name)
    await cluster.drop_database(name)


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """A fresh database, once on each engine, of the server `example.org`."""
    opened = await open_database(database_url, SERVER_NAME, Clock(), directory=tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def start_server(tmp_path: Path, database_url: str) -> AsyncIterator[StartServer]:
    """Starts a server inside the test's own process, with settings of its own; once on each engine."""
    started: list[Server] = []

    async def start(**settings: Any) -> Server:
        running = Server(tmp_path, database_url, **settings)
        await running.start()
        started.append(running)
        return running

    yield start
    for running in started:
        await running.stop()


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    """A fresh server."""
    return await start_server()


@pytest.fixture
async def alice(server: Server) -> Client:
    """A user of the server."""
    return await server.register("alice")


@pytest.fixture
async def bob(server: Server) -> Client:
    """Another one."""
    return await server.register("bob")


@pytest.fixture
async def servers(tmp_path: Path, postgresql_url: str) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers on one PostgreSQL, as two processes are."""
    pair = [Server(tmp_path, postgresql_url, presence={"enabled": True}) for _ in range(2)]
    for server in pair:
        await server.start()
    yield pair[0], pair[1]
    for server in pair:
        await server.stop()
