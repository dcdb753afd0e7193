"""Signatures over keys: those of users over what is theirs, and those over the master keys of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.ids import DeviceId
    from homeserver.storage.database import Database, Reader, Transaction


@dataclass(frozen=True, slots=True)
class KeySignature:
    """A signature. What is signed is named by a device id or the Base64 of a cross-signing key."""

    user_id: UserId
    key_id: str
    signer_key_id: str
    """With algorithm."""
    signature: str


class KeySignatureStore:
    """Signatures by what they are over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- of users over their own keys ------------------------------------------------------------------

    async def add(self, transaction: Transaction, signatures: Sequence[KeySignature]) -> bool:
        """Store signatures of users over their own keys; whether one of them is new."""
        present = set(await self.load(sorted({one.user_id for one in signatures}), transaction))
        new = [one for one in signatures if one not in present]
        await transaction.execute_many(
            "INSERT INTO key_signatures (user_id, key_id, signer_key_id, signature)"
            " VALUES ($1, $2, $3, $4) ON CONFLICT (user_id, key_id, signer_key_id)"
            " DO UPDATE SET signature = excluded.signature",
            [(one.user_id, one.key_id, one.signer_key_id, one.signature) for one in new],
        )
        return bool(new)

    async def load(self, user_ids: Sequence[UserId], reader: Reader | None = None) -> list[KeySignature]:
        """The signatures of some users over their own keys."""
        rows = await (reader or self._database).fetch_all(
            "SELECT user_id, key_id, signer_key_id, signature FROM key_signatures"
            " WHERE user_id = ANY($1::text[]) ORDER BY user_id, key_id, signer_key_id",
            list(user_ids),
        )
        return [KeySignature(UserId(row[0]), *row[1:]) for row in rows]

    async def forget_signed(self, transaction: Transaction, user_id: UserId, key_id: str) -> None:
        """What was signed under this name has changed: no signature of it holds any more."""
        await transaction.execute(
            "DELETE FROM user_signatures WHERE user_id = $1 AND key_id = $2", user_id, key_id
        )
        await transaction.execute(
            "DELETE FROM key_signatures WHERE user_id = $1 AND key_id = $2", user_id, key_id
        )

    async def forget_keys(self, transaction: Transaction, user_id: UserId, key_ids: Collection[str]) -> None:
        """These keys of a user are gone: so is what they signed, and what was signed of them."""
        if not key_ids:
            return
        signers = [f"ed25519:{key_id}" for key_id in key_ids]
        await transaction.execute(
            "DELETE FROM key_signatures WHERE user_id = $1"
            " AND (key_id = ANY($2::text[]) OR signer_key_id = ANY($3::text[]))",
            user_id,
            list(key_ids),
            signers,
        )
        await transaction.execute(
            "DELETE FROM user_signatures WHERE user_id = $1 AND key_id = ANY($2::text[])",
            user_id,
            list(key_ids),
        )
        await transaction.execute(
            "DELETE FROM user_signatures WHERE signer_user_id = $1 AND signer_key_id = ANY($2::text[])",
            user_id,
            signers,
        )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop what some devices signed, and what was signed of them."""
        await self.forget_keys(transaction, user_id, device_ids)

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop everything that a user signed, and what others signed of theirs."""
        await transaction.execute("DELETE FROM key_signatures WHERE user_id = $1", user_id)
        await transaction.execute(
            "DELETE FROM user_signatures WHERE user_id = $1 OR signer_user_id = $1", user_id
        )

    # -- of users over the master keys of others -------------------------------------------------------

    async def set_of_others(
        self, transaction: Transaction, signer: UserId, signatures: Sequence[KeySignature]
    ) -> None:
        """Store a user's signatures over the master keys of others; where one is new the user hears of it.

        Nobody else can see them.
        """
        present = set(await self.load_of_others(signer, [one.user_id for one in signatures], transaction))
        new = [one for one in signatures if one not in present]
        if not new:
            return
        position = await transaction.next_position()
        await transaction.execute_many(
            "INSERT INTO user_signatures (signer_user_id, user_id, key_id, signer_key_id, signature, stream_id)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (signer_user_id, user_id)"
            " DO UPDATE SET key_id = excluded.key_id, signer_key_id = excluded.signer_key_id,"
            " signature = excluded.signature, stream_id = excluded.stream_id",
            [(signer, one.user_id, one.key_id, one.signer_key_id, one.signature, position) for one in new],
        )
        transaction.announce(Topic.USER_SIGNATURES, signer)

    async def load_of_others(
        self, signer: UserId, user_ids: Sequence[UserId], reader: Reader | None = None
    ) -> list[KeySignature]:
        """A user's signatures over the master keys of some others."""
        rows = await (reader or self._database).fetch_all(
            "SELECT user_id, key_id, signer_key_id, signature FROM user_signatures"
            " WHERE signer_user_id = $1 AND user_id = ANY($2::text[])",
            signer,
            list(user_ids),
        )
        return [KeySignature(UserId(row[0]), *row[1:]) for row in rows]

    async def load_signed(self, signer: UserId, *, after: int, upto: int) -> set[UserId]:
        """Whose master keys a user signed with `after < position <= upto`."""
        rows = await self._database.fetch_all(
            "SELECT user_id FROM user_signatures"
            " WHERE signer_user_id = $1 AND stream_id > $2 AND stream_id <= $3",
            signer,
            after,
            upto,
        )
        return {UserId(user_id) for (user_id,) in rows}
