"""OpenID tokens; only a hash of each is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import UserId
from homeserver.storage.access_tokens import token_hash

if TYPE_CHECKING:
    from homeserver.storage.database import Database, Transaction


class OpenIdTokenStore:
    """Tokens by their hash."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, transaction: Transaction, token: str, user_id: UserId, expires_ts: int) -> None:
        """Store a new token."""
        await transaction.execute_many(
            "INSERT INTO openid_tokens (token_hash, user_id, stream_id, expires_ts) VALUES ($1, $2, $3, $4)",
            [(token_hash(token), user_id, await transaction.next_position(), expires_ts)],
        )

    async def get(self, token: str, now_ms: int) -> UserId | None:
        """The user of a token that has not run out."""
        user_id = await self._database.fetch_value(
            "SELECT user_id FROM openid_tokens WHERE token_hash = $1 AND expires_ts > $2",
            token_hash(token),
            now_ms,
        )
        return None if user_id is None else UserId(user_id)

    async def delete_oldest(self, transaction: Transaction, user_id: UserId, kept: int) -> None:
        """Drop a user's tokens but the newest."""
        await transaction.execute(
            "DELETE FROM openid_tokens WHERE user_id = $1 AND stream_id <= coalesce((SELECT stream_id"
            " FROM openid_tokens WHERE user_id = $1 ORDER BY stream_id DESC LIMIT 1 OFFSET $2), -1)",
            user_id,
            kept,
        )

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> None:
        """Drop what has run out."""
        await transaction.execute("DELETE FROM openid_tokens WHERE expires_ts <= $1", now_ms)

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop the tokens of a user."""
        await transaction.execute("DELETE FROM openid_tokens WHERE user_id = $1", user_id)
