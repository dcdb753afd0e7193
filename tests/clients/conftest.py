"""The server and the devices of both libraries that tests of encryption have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.stage import Stage, set_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with set_up(tmp_path) as made:
        yield made
