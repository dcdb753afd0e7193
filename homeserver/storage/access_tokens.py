"""Access tokens, refresh tokens and login tokens; only their hashes are stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import DeviceId, UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.storage.database import Database, Transaction


def token_hash(token: str) -> bytes:
    """What is stored of a token. It has enough entropy of its own: a fast hash is right."""
    return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class AccessTokenRow:
    """An access token with what is known of its holder."""

    token_nid: int
    user_id: UserId
    device_id: DeviceId | None
    expires_ts: int | None
    refresh_nid: int | None
    is_admin: bool
    is_guest: bool
    is_locked: bool
    is_suspended: bool


@dataclass(frozen=True, slots=True)
class RefreshTokenRow:
    """A refresh token."""

    refresh_nid: int
    user_id: UserId
    device_id: DeviceId
    is_locked: bool


class AccessTokenStore:
    """Tokens by hash."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(
        self,
        transaction: Transaction,
        token: str,
        user_id: UserId,
        device_id: DeviceId | None,
        *,
        expires_ts: int | None = None,
        refresh_nid: int | None = None,
    ) -> None:
        """Store an access token."""
        await transaction.execute(
            "INSERT INTO access_tokens (token_nid, token_hash, user_id, device_id, expires_ts, refresh_nid)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            await transaction.next_position(),
            token_hash(token),
            user_id,
            device_id,
            expires_ts,
            refresh_nid,
        )

    async def insert_refresh(
        self, transaction: Transaction, token: str, user_id: UserId, device_id: DeviceId
    ) -> int:
        """Store a refresh token; the answer is its number."""
        refresh_nid = await transaction.next_position()
        await transaction.execute(
            "INSERT INTO refresh_tokens (refresh_nid, token_hash, user_id, device_id) VALUES ($1, $2, $3, $4)",
            refresh_nid,
            token_hash(token),
            user_id,
            device_id,
        )
        return refresh_nid

    async def get(self, token: str) -> AccessTokenRow | None:
        """Who holds an access token."""
        row = await self._database.fetch_one(
            "SELECT t.token_nid, t.user_id, t.device_id, t.expires_ts, t.refresh_nid, a.is_admin, a.is_guest,"
            " a.is_locked, a.is_suspended FROM access_tokens t JOIN accounts a ON a.user_id = t.user_id"
            " WHERE t.token_hash = $1 AND a.deactivated_ts IS NULL",
            token_hash(token),
        )
        if row is None:
            return None
        token_nid, user_id, device_id, expires_ts, refresh_nid, *flags = row
        is_admin, is_guest, is_locked, is_suspended = map(bool, flags)
        return AccessTokenRow(
            token_nid=token_nid,
            user_id=user_id,
            device_id=device_id,
            expires_ts=expires_ts,
            refresh_nid=refresh_nid,
            is_admin=is_admin,
            is_guest=is_guest,
            is_locked=is_locked,
            is_suspended=is_suspended,
        )

    async def get_refresh(self, transaction: Transaction, token: str) -> RefreshTokenRow | None:
        """Who holds a refresh token."""
        row = await transaction.fetch_one(
            "SELECT t.refresh_nid, t.user_id, t.device_id, a.is_locked FROM refresh_tokens t"
            " JOIN accounts a ON a.user_id = t.user_id WHERE t.token_hash = $1",
            token_hash(token),
        )
        if row is None:
            return None
        refresh_nid, user_id, device_id, is_locked = row
        return RefreshTokenRow(refresh_nid, user_id, device_id, bool(is_locked))

    async def set_next(self, transaction: Transaction, refresh_nid: int, next_nid: int) -> None:
        """Note which refresh token takes the place of another; the one noted before, never used, is dropped."""
        await transaction.execute(
            "DELETE FROM access_tokens WHERE refresh_nid IN"
            " (SELECT next_nid FROM refresh_tokens WHERE refresh_nid = $1 AND next_nid IS NOT NULL)",
            refresh_nid,
        )
        await transaction.execute(
            "DELETE FROM refresh_tokens WHERE refresh_nid IN"
            " (SELECT next_nid FROM refresh_tokens WHERE refresh_nid = $1 AND next_nid IS NOT NULL)",
            refresh_nid,
        )
        await transaction.execute(
            "UPDATE refresh_tokens SET next_nid = $2 WHERE refresh_nid = $1", refresh_nid, next_nid
        )

    async def settle_refresh(self, transaction: Transaction, user_id: UserId, refresh_nid: int) -> None:
        """The pair with this refresh token was used: the pair before it is good no longer."""
        await transaction.execute(
            "DELETE FROM access_tokens WHERE refresh_nid IN"
            " (SELECT refresh_nid FROM refresh_tokens WHERE next_nid = $1)",
            refresh_nid,
        )
        await transaction.execute("DELETE FROM refresh_tokens WHERE next_nid = $1", refresh_nid)
        await transaction.next_position()
        transaction.announce(Topic.CREDENTIALS, user_id)

    async def has_unsettled(self, refresh_nid: int) -> bool:
        """Whether an older refresh token still waits for the first use of this one."""
        return bool(
            await self._database.fetch_value("SELECT 1 FROM refresh_tokens WHERE next_nid = $1", refresh_nid)
        )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop all tokens of some devices."""
        for table in ("access_tokens", "refresh_tokens"):
            await transaction.execute(
                f"DELETE FROM {table} WHERE user_id = $1 AND device_id = ANY($2::text[])",
                user_id,
                list(device_ids),
            )
        await transaction.next_position()
        transaction.announce(Topic.CREDENTIALS, user_id)

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop all tokens of a user."""
        for table in ("access_tokens", "refresh_tokens", "login_tokens"):
            await transaction.execute(f"DELETE FROM {table} WHERE user_id = $1", user_id)
        await transaction.next_position()
        transaction.announce(Topic.CREDENTIALS, user_id)

    async def insert_login(
        self, transaction: Transaction, token: str, user_id: UserId, expires_ts: int, now_ms: int
    ) -> None:
        """Store a login token, and drop those that have run out."""
        await transaction.execute("DELETE FROM login_tokens WHERE expires_ts <= $1", now_ms)
        await transaction.execute(
            "INSERT INTO login_tokens (token_hash, user_id, expires_ts) VALUES ($1, $2, $3)",
            token_hash(token),
            user_id,
            expires_ts,
        )

    async def delete_logins(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop the login tokens of a user."""
        await transaction.execute("DELETE FROM login_tokens WHERE user_id = $1", user_id)

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> None:
        """Drop the login tokens that are no longer good."""
        await transaction.execute("DELETE FROM login_tokens WHERE expires_ts <= $1", now_ms)

    async def take_login(self, transaction: Transaction, token: str, now_ms: int) -> UserId | None:
        """Use a login token up; None where it is not, or no longer, good."""
        row = await transaction.fetch_one(
            "DELETE FROM login_tokens WHERE token_hash = $1 RETURNING user_id, expires_ts", token_hash(token)
        )
        return UserId(row[0]) if row is not None and row[1] > now_ms else None
