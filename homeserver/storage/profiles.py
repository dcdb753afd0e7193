"""Profiles of this server's users: fields with any JSON value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from homeserver.storage.accounts import NOT_DEACTIVATED
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Reader, Transaction


class ProfileStore:
    """Profile fields by user; values are JSON as bytes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self, user_id: UserId, reader: Reader | None = None) -> dict[str, bytes]:
        """All fields of a profile."""
        rows = await (reader or self._database).fetch_all(
            "SELECT field, value FROM profiles WHERE user_id = $1 ORDER BY field", user_id
        )
        return {field: bytes(value) for field, value in rows}

    async def set(self, transaction: Transaction, user_id: UserId, field: str, value: bytes) -> None:
        """Set a field."""
        await transaction.execute(
            "INSERT INTO profiles (user_id, field, value)"
            f" SELECT $1::text, $2::text, $3::bytea WHERE {NOT_DEACTIVATED}"
            " ON CONFLICT (user_id, field) DO UPDATE SET value = excluded.value",
            user_id,
            field,
            value,
        )
        await transaction.next_position()
        transaction.announce(Topic.PROFILE, user_id)

    async def delete(self, transaction: Transaction, user_id: UserId, field: str) -> None:
        """Drop a field."""
        await transaction.execute("DELETE FROM profiles WHERE user_id = $1 AND field = $2", user_id, field)
        await transaction.next_position()
        transaction.announce(Topic.PROFILE, user_id)

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop a whole profile."""
        await transaction.execute("DELETE FROM profiles WHERE user_id = $1", user_id)

    async def set_text(self, transaction: Transaction, user_id: UserId, field: str, value: str) -> None:
        """Set a field to a text."""
        await self.set(transaction, user_id, field, orjson.dumps(value))
