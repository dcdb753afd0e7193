"""What a server asks of its database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.server import Server


class Questions:
    """Counts what is asked of the database of a server."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        database = server.application.database
        ask, ask_many = database.fetch_all, database.fetch_many
        self.number = 0

        async def fetch_all(sql: str, *arguments: object) -> list[tuple[object, ...]]:
            self.number += 1
            return await ask(sql, *arguments)

        async def fetch_many(sql: str, rows: Sequence[Sequence[object]]) -> list[tuple[object, ...]]:
            self.number += 1
            return await ask_many(sql, rows)

        monkeypatch.setattr(database, "fetch_all", fetch_all)
        monkeypatch.setattr(database, "fetch_many", fetch_many)

    def taken(self) -> int:
        """How many there were since the last time."""
        number, self.number = self.number, 0
        return number
