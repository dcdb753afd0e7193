"""Cross-signing keys of users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import UserId

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from homeserver.storage.database import Database, Reader, Transaction

MASTER, SELF_SIGNING, USER_SIGNING = "master", "self_signing", "user_signing"
USAGES = (MASTER, SELF_SIGNING, USER_SIGNING)


class CrossSigningStore:
    """Cross-signing keys by user and usage, as JSON without their signatures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(
        self, user_ids: Sequence[UserId], reader: Reader | None = None
    ) -> dict[UserId, dict[str, bytes]]:
        """The keys of some users, by usage."""
        rows = await (reader or self._database).fetch_all(
            "SELECT user_id, usage, key FROM cross_signing_keys WHERE user_id = ANY($1::text[])",
            list(user_ids),
        )
        keys: dict[UserId, dict[str, bytes]] = {}
        for user_id, usage, key in rows:
            keys.setdefault(UserId(user_id), {})[usage] = bytes(key)
        return keys

    async def is_public_key(self, reader: Reader, user_id: UserId, name: str) -> bool:
        """Whether this is the public key, in Base64, of one of a user's keys."""
        return bool(
            await reader.fetch_value(
                "SELECT 1 FROM cross_signing_keys WHERE user_id = $1 AND public_key = $2", user_id, name
            )
        )

    async def set(
        self, transaction: Transaction, user_id: UserId, keys: Mapping[str, tuple[str, bytes]]
    ) -> None:
        """Store keys, by usage, each with its public key in Base64, in the place of older ones."""
        await transaction.execute_many(
            "INSERT INTO cross_signing_keys (user_id, usage, public_key, key) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (user_id, usage) DO UPDATE SET public_key = excluded.public_key, key = excluded.key",
            [(user_id, usage, *key) for usage, key in keys.items()],
        )

    async def delete(self, transaction: Transaction, user_id: UserId, usages: Collection[str]) -> None:
        """Drop keys."""
        await transaction.execute(
            "DELETE FROM cross_signing_keys WHERE user_id = $1 AND usage = ANY($2::text[])",
            user_id,
            list(usages),
        )
