"""The server and the devices of both libraries that tests of encryption have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.stage import Stage, set_up, set_up_two_processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with set_up(tmp_path) as made:
        yield made


@pytest.fixture
async def stage_on_each_engine(engine: str, database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """Once on SQLite, and once on PostgreSQL with two processes."""
    two = engine == "postgresql"
    async with set_up_two_processes(tmp_path, database_url) if two else set_up(tmp_path) as made:
        yield made
