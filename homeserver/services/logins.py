"""Logins and logouts: tokens for a device, in exchange for a proof of who one is (CS "Legacy API: Login")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, InvalidParam
from homeserver.ids import DeviceId, random_string
from homeserver.services.access_tokens import locked
from homeserver.services.accounts import deactivated
from homeserver.services.devices import check_device_id, check_device_name

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import UserId
    from homeserver.services.access_tokens import AccessTokens, TokenPair
    from homeserver.services.accounts import Accounts
    from homeserver.services.devices import Devices
    from homeserver.services.requester import Requester
    from homeserver.storage.access_tokens import AccessTokenStore
    from homeserver.storage.accounts import Account, AccountStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.dehydrated_devices import DehydratedDeviceStore
    from homeserver.storage.devices import DeviceStore

_DEVICE_ID_LENGTH = 10
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class NewSession:
    """What a client asks for: a device, new or known, and whether it can refresh its token."""

    device_id: str | None = None
    display_name: str | None = None
    refreshable: bool = False

    def check(self) -> None:
        """Refuse what cannot be had; raises `InvalidParam`."""
        if self.device_id is not None:
            check_device_id(self.device_id)
        check_device_name(self.display_name)


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """Who is logged in now, on which device, and the tokens."""

    user_id: UserId
    device_id: DeviceId
    tokens: TokenPair


class Logins:
    """Opens and ends the sessions of devices."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        accounts: Accounts,
        account_store: AccountStore,
        tokens: AccessTokens,
        token_store: AccessTokenStore,
        device_store: DeviceStore,
        devices: Devices,
        dehydrated_devices: DehydratedDeviceStore,
    ) -> None:
        self._database = database
        self._clock = clock
        self._accounts = accounts
        self._account_store = account_store
        self._tokens = tokens
        self._token_store = token_store
        self._device_store = device_store
        self._devices = devices
        self._dehydrated_devices = dehydrated_devices

    async def by_password(self, user_id: UserId | None, password: str, wanted: NewSession) -> OpenedSession:
        """Log in with a password; `Forbidden` where it is not that of the user."""
        wanted.check()
        account = await self._accounts.verify_password(user_id, password)

        async def work(transaction: Transaction) -> OpenedSession:
            # Meanwhile the password may have been changed, and its sessions ended.
            current = await self._usable(transaction, account.user_id)
            if current.password_hash != account.password_hash:
                raise Forbidden("Wrong user name or password")
            return await self.open_in(transaction, account.user_id, wanted)

        return await self._database.write(work)

    async def by_token(self, token: str, wanted: NewSession) -> OpenedSession:
        """Log in with a login token, which is used up; `Forbidden` where it is not good."""
        wanted.check()

        async def work(transaction: Transaction) -> OpenedSession:
            user_id = await self._token_store.take_login(transaction, token, self._clock.now_ms())
            if user_id is None:
                raise Forbidden("Unknown or expired login token")
            await self._usable(transaction, user_id)
            return await self.open_in(transaction, user_id, wanted)

        return await self._database.write(work)

    async def _usable(self, transaction: Transaction, user_id: UserId) -> Account:
        account = await self._account_store.get(user_id, transaction)
        if account is None or account.deactivated_ts is not None:
            raise deactivated()
        if account.is_locked:
            raise locked()
        return account

    async def open(self, user_id: UserId) -> OpenedSession:
        """A session on a new device, for somebody who is known to be who they are."""
        return await self._database.write(lambda t: self.open_in(t, user_id, NewSession()))

    async def open_in(self, transaction: Transaction, user_id: UserId, wanted: NewSession) -> OpenedSession:
        """Tokens for a device, which is made where there is none of that id; its older tokens end.

        `InvalidParam` for the dehydrated device, whose messages go with it and not with a sync; `Forbidden` for the
        public key of a cross-signing key.
        """
        device = DeviceId(wanted.device_id or random_string(_DEVICE_ID_LENGTH, _CAPITALS))
        if wanted.device_id is not None:
            await self._devices.check_free_in(transaction, user_id, device)
            dehydrated = await self._dehydrated_devices.get(user_id, transaction)
            if dehydrated is not None and dehydrated.device_id == device:
                raise InvalidParam("This is the id of the dehydrated device")
            await self._token_store.delete_of_devices(transaction, user_id, [device])
        now = self._clock.now_ms()
        await self._device_store.ensure(transaction, user_id, device, wanted.display_name, now)
        tokens = await self._tokens.issue(transaction, user_id, device, refreshable=wanted.refreshable)
        return OpenedSession(user_id, device, tokens)

    async def logout(self, requester: Requester) -> None:
        """End the session of the device that asks."""
        if requester.device_id is not None:
            await self._devices.delete(requester.user_id, [requester.device_id])

    async def logout_all(self, user_id: UserId) -> None:
        """End all sessions of a user."""

        async def work(transaction: Transaction) -> None:
            await self._devices.delete_all_in(transaction, user_id)
            await self._token_store.delete_of_user(transaction, user_id)

        await self._database.write(work)
