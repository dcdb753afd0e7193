"""Accounts of this server's users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.storage.database import Database, Reader, Transaction


NOT_DEACTIVATED = "NOT EXISTS (SELECT 1 FROM accounts WHERE user_id = $1 AND deactivated_ts IS NOT NULL)"
"""A condition for writes of what goes with the account of the user `$1`: a request may outlive the account."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account. `password_hash` is None where nobody can log in by password."""

    user_id: UserId
    password_hash: str | None
    created_ts: int
    is_admin: bool
    is_guest: bool
    is_locked: bool
    is_suspended: bool
    deactivated_ts: int | None


_COLUMNS = "user_id, password_hash, created_ts, is_admin, is_guest, is_locked, is_suspended, deactivated_ts"


def _read(row: tuple) -> Account:  # type: ignore[type-arg]
    user_id, password_hash, created_ts, is_admin, is_guest, is_locked, is_suspended, deactivated_ts = row
    return Account(
        UserId(user_id),
        password_hash,
        created_ts,
        bool(is_admin),
        bool(is_guest),
        bool(is_locked),
        bool(is_suspended),
        deactivated_ts,
    )


class AccountStore:
    """Accounts by user id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, transaction: Transaction, account: Account) -> bool:
        """Store a new account; False where the name is taken."""
        return bool(
            await transaction.execute(
                f"INSERT INTO accounts ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                account.user_id,
                account.password_hash,
                account.created_ts,
                int(account.is_admin),
                int(account.is_guest),
                int(account.is_locked),
                int(account.is_suspended),
                account.deactivated_ts,
            )
        )

    async def get(self, user_id: UserId, reader: Reader | None = None) -> Account | None:
        """An account."""
        row = await (reader or self._database).fetch_one(
            f"SELECT {_COLUMNS} FROM accounts WHERE user_id = $1", user_id
        )
        return _read(row) if row else None

    async def exists(self, user_id: UserId) -> bool:
        """Whether there is, or was, an account of this name."""
        return bool(await self._database.fetch_value("SELECT 1 FROM accounts WHERE user_id = $1", user_id))

    async def load_existing(self, user_ids: Sequence[UserId]) -> list[UserId]:
        """Those of these users of whom there is, or was, an account."""
        rows = await self._database.fetch_all(
            "SELECT user_id FROM accounts WHERE user_id = ANY($1::text[])", list(user_ids)
        )
        return [UserId(user_id) for (user_id,) in rows]

    async def load_all(self) -> list[Account]:
        """All accounts, oldest first."""
        rows = await self._database.fetch_all(f"SELECT {_COLUMNS} FROM accounts ORDER BY created_ts, user_id")
        return [_read(row) for row in rows]

    async def count(self) -> int:
        """How many accounts there are."""
        return await self._database.fetch_value("SELECT count(*) FROM accounts") or 0

    async def promote_guest(self, transaction: Transaction, user_id: UserId, password_hash: str) -> bool:
        """Make a guest a user with a password; False where there is no such guest (any more)."""
        return bool(
            await transaction.execute(
                "UPDATE accounts SET is_guest = 0, password_hash = $2"
                " WHERE user_id = $1 AND is_guest = 1 AND deactivated_ts IS NULL",
                user_id,
                password_hash,
            )
        )

    async def set_password(
        self, transaction: Transaction, user_id: UserId, password_hash: str | None
    ) -> None:
        """Set the hash of a password."""
        await transaction.execute(
            "UPDATE accounts SET password_hash = $2 WHERE user_id = $1", user_id, password_hash
        )

    async def set_admin(self, transaction: Transaction, user_id: UserId, *, is_admin: bool) -> None:
        """Make a user an administrator, or no longer one."""
        await transaction.execute(
            "UPDATE accounts SET is_admin = $2 WHERE user_id = $1", user_id, int(is_admin)
        )
        await transaction.next_position()
        transaction.announce(Topic.CREDENTIALS, user_id)

    async def deactivate(
        self, transaction: Transaction, user_id: UserId, now_ms: int, *, erase: bool
    ) -> None:
        """Close an account for good; `erase` is never taken back."""
        await transaction.execute(
            "UPDATE accounts SET password_hash = NULL, deactivated_ts = coalesce(deactivated_ts, $2)"
            " WHERE user_id = $1",
            user_id,
            now_ms,
        )
        if erase:
            await transaction.execute(
                "UPDATE accounts SET erased_position = coalesce(erased_position, $2) WHERE user_id = $1",
                user_id,
                await transaction.next_position(),
            )
            transaction.announce(Topic.ERASED, user_id)

    async def load_erased(self) -> dict[UserId, int]:
        """Everybody who asked for their content to be erased, with the position at which they did."""
        rows = await self._database.fetch_all(
            "SELECT user_id, erased_position FROM accounts WHERE erased_position IS NOT NULL"
        )
        return {UserId(user_id): position for user_id, position in rows}

    async def load_deactivated_in_rooms(self) -> list[UserId]:
        """Those who are closed but still in a room, or invited to one."""
        rows = await self._database.fetch_all(
            "SELECT a.user_id FROM accounts a WHERE a.deactivated_ts IS NOT NULL AND EXISTS"
            " (SELECT 1 FROM memberships m WHERE m.user_id = a.user_id"
            " AND m.membership IN ('join', 'invite', 'knock')) ORDER BY a.deactivated_ts"
        )
        return [UserId(user_id) for (user_id,) in rows]
