"""A fresh server for each test, once on each database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.client import Client


@pytest.fixture
async def server(tmp_path: Path, database_url: str) -> AsyncIterator[Server]:
    running = Server(tmp_path, database_url)
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def alice(server: Server) -> Client:
    return await server.register("alice")


@pytest.fixture
async def bob(server: Server) -> Client:
    return await server.register("bob")
