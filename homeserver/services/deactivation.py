"""The end of an account (CS "Account deactivation"): nobody logs in any more, and what was kept for the user goes.

One transaction closes the account; then the user leaves their rooms, which `resume` takes up after a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from homeserver.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.clock import Clock
    from homeserver.ids import UserId
    from homeserver.services.devices import Devices
    from homeserver.services.key_backups import KeyBackups
    from homeserver.services.membership import Membership
    from homeserver.storage.access_tokens import AccessTokenStore
    from homeserver.storage.accounts import AccountStore
    from homeserver.storage.database import Database, Transaction


class KeptForUsers(Protocol):
    """A store of what is kept for a user and goes with the account."""

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop everything of a user."""


class Deactivation:
    """Closes accounts."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        accounts: AccountStore,
        tokens: AccessTokenStore,
        devices: Devices,
        membership: Membership,
        kept: Sequence[KeptForUsers],
        key_backups: KeyBackups,
    ) -> None:
        self._database = database
        self._clock = clock
        self._accounts = accounts
        self._tokens = tokens
        self._devices = devices
        self._membership = membership
        self._kept = kept
        self._key_backups = key_backups

    async def deactivate(self, user_id: UserId, *, erase: bool = False) -> None:
        """Close an account for good; with `erase`, newcomers to a room see the user's events redacted.

        Raises `NotFound` where there is no such account. Once more is no harm.
        """
        if not await self._accounts.exists(user_id):
            raise NotFound(f"There is no account {user_id}")

        async def work(transaction: Transaction) -> None:
            await self._accounts.deactivate(transaction, user_id, self._clock.now_ms(), erase=erase)
            await self._devices.delete_all_in(transaction, user_id)
            await self._tokens.delete_of_user(transaction, user_id)
            for store in self._kept:
                await store.delete_of_user(transaction, user_id)

        await self._database.write(work)
        await self._membership.leave_all(user_id)
        await self._key_backups.delete_dropped()

    async def resume(self) -> None:
        """Take those out of their rooms whose deactivation the end of the program broke off."""
        for user_id in await self._accounts.load_deactivated_in_rooms():
            await self._membership.leave_all(user_id)
