"""What tests of federation share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.federation.internet import Internet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def internet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    """An internet with nothing on it."""
    made = Internet(monkeypatch)
    yield made
    await made.close()
