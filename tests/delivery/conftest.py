"""What tests of delivery share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.delivery.far_servers import FarServers
from tests.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def far() -> FarServers:
    """The other servers."""
    return FarServers()


@pytest.fixture
async def server(tmp_path: Path, database_url: str, far: FarServers) -> AsyncIterator[Server]:
    """A server whose transactions go to them."""
    running = Server(tmp_path, database_url)
    running.courier = far
    await running.start()
    yield running
    await running.stop()
