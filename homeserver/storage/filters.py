"""Filters that clients have uploaded; equal ones of a user are stored once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from homeserver.storage.accounts import NOT_DEACTIVATED

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Transaction

MAX_FILTERS = 1_000


class FilterStore:
    """Filters by user and id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, transaction: Transaction, user_id: UserId, definition: str) -> int | None:
        """The id of a filter, a new one where the user has none like it; None past `MAX_FILTERS`."""
        digest = hashlib.blake2b(definition.encode(), digest_size=16).digest()
        known = await transaction.fetch_value(
            "SELECT filter_id FROM filters WHERE user_id = $1 AND definition_hash = $2", user_id, digest
        )
        if known is not None:
            return int(known)
        count = await transaction.fetch_value("SELECT count(*) FROM filters WHERE user_id = $1", user_id) or 0
        if count >= MAX_FILTERS:
            return None
        await transaction.execute(
            "INSERT INTO filters (user_id, filter_id, definition, definition_hash)"
            f" SELECT $1::text, $2::bigint, $3::text, $4::bytea WHERE {NOT_DEACTIVATED}",
            user_id,
            count,
            definition,
            digest,
        )
        return int(count)

    async def get(self, user_id: UserId, filter_id: int) -> str | None:
        """The definition of a filter."""
        return await self._database.fetch_value(
            "SELECT definition FROM filters WHERE user_id = $1 AND filter_id = $2", user_id, filter_id
        )

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop all filters of a user."""
        await transaction.execute("DELETE FROM filters WHERE user_id = $1", user_id)
