"""The statements that a server on SQLite runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from homeserver.storage.sqlite_connection import SqliteConnection, Statement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest


class Statements:
    """Counts the statements of a server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._seen: list[str] = []
        run = SqliteConnection.run

        async def note(connection: SqliteConnection, statements: Sequence[Statement]) -> Any:
            self._seen += [one.sql for one in statements if one.sql not in ("BEGIN IMMEDIATE", "COMMIT")]
            return await run(connection, statements)

        monkeypatch.setattr(SqliteConnection, "run", note)

    @contextmanager
    def at_most(self, number: int) -> Iterator[None]:
        """So many come inside the `with` at most."""
        seen: list[str] = []
        self._seen = seen
        yield
        assert len(seen) <= number, seen
