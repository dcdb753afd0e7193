"""Files that no media refers to: being written, given up, or no longer wanted.

The name of a file stands here before the first byte is written, and goes in the transaction by which something comes to
refer to the file. So whatever ends a program half-way, no file is forgotten: what stands here for long is deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from homeserver.storage.database import Database, Transaction

_AT_ONCE = 100


class StrayFiles:
    """Names of files."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, transaction: Transaction, name: str, now_ms: int) -> None:
        """A file is about to be written."""
        await transaction.execute(
            "INSERT INTO media_strays (name, since_ts, is_given_up) VALUES ($1, $2, 0)"
            " ON CONFLICT DO NOTHING",
            name,
            now_ms,
        )

    async def claim(self, transaction: Transaction, name: str) -> bool:
        """Something refers to the file from now on; False where it was given up."""
        return bool(
            await transaction.execute("DELETE FROM media_strays WHERE name = $1 AND is_given_up = 0", name)
        )

    async def give_up(self, transaction: Transaction, names: Collection[str]) -> None:
        """Nothing will refer to these files any more: they may be deleted."""
        await transaction.execute_many(
            "INSERT INTO media_strays (name, since_ts, is_given_up) VALUES ($1, 0, 1)"
            " ON CONFLICT (name) DO UPDATE SET is_given_up = 1",
            [(name,) for name in names],
        )

    async def give_up_unclaimed(self, transaction: Transaction, name: str) -> bool:
        """Give up one file, unless something refers to it; whether it was given up."""
        return bool(
            await transaction.execute("UPDATE media_strays SET is_given_up = 1 WHERE name = $1", name)
        )

    async def give_up_begun_before(self, transaction: Transaction, ts: int) -> None:
        """Give up what was begun long ago and never finished."""
        await transaction.execute(
            "UPDATE media_strays SET is_given_up = 1 WHERE is_given_up = 0 AND since_ts < $1", ts
        )

    async def load_given_up(self) -> list[str]:
        """Some of the files that may be deleted."""
        rows = await self._database.fetch_all(
            "SELECT name FROM media_strays WHERE is_given_up = 1 LIMIT $1", _AT_ONCE
        )
        return [name for (name,) in rows]

    async def delete(self, transaction: Transaction, names: Collection[str]) -> None:
        """These files are deleted."""
        await transaction.execute(
            "DELETE FROM media_strays WHERE name = ANY($1::text[]) AND is_given_up = 1", list(names)
        )
