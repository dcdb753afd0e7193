"""What the tests of exactness share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.sync import delivered
from tests.server import Server
from tests.sync.machine import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A server for all examples of a test, once on each engine."""
    # What is written down by the clock would come between two answers that are to be the same.
    monkeypatch.setattr(delivered, "_EVERY_SECONDS", 3_600)
    made = World(Server(tmp_path, database_url))
    yield made
    made.close()
