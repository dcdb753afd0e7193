"""Logins and logouts: tokens for a device, in exchange for a proof of who one is (CS "Legacy API: Login")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import Forbidden
from homeserver.ids import DeviceId, random_string
from homeserver.services.devices import check_device_id, check_device_name

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.ids import UserId
    from homeserver.services.access_tokens import AccessTokens, TokenPair
    from homeserver.services.accounts import Accounts
    from homeserver.services.devices import Devices
    from homeserver.services.requester import Requester
    from homeserver.storage.access_tokens import AccessTokenStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.devices import DeviceStore

_DEVICE_ID_LENGTH = 10
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Logins:
    """Opens and ends the sessions of devices."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        accounts: Accounts,
        tokens: AccessTokens,
        token_store: AccessTokenStore,
        device_store: DeviceStore,
        devices: Devices,
    ) -> None:
        self._database = database
        self._clock = clock
        self._accounts = accounts
        self._tokens = tokens
        self._token_store = token_store
        self._device_store = device_store
        self._devices = devices

    async def by_token(self, token: str) -> UserId:
        """Whose login token this is; it is used up. `Forbidden` where it is not good."""
        user_id = await self._tokens.take_login_token(token)
        if user_id is None:
            raise Forbidden("Unknown or expired login token")
        return user_id

    async def open(
        self, user_id: UserId, device_id: str | None, display_name: str | None, *, refreshable: bool
    ) -> tuple[DeviceId, TokenPair]:
        """Tokens for a device, which is made where there is none of that id; its older tokens end."""
        if device_id is not None:
            check_device_id(device_id)
        check_device_name(display_name)
        return await self._database.write(
            lambda t: self.open_in(t, user_id, device_id, display_name, refreshable=refreshable)
        )

    async def open_in(
        self,
        transaction: Transaction,
        user_id: UserId,
        device_id: str | None,
        display_name: str | None,
        *,
        refreshable: bool,
    ) -> tuple[DeviceId, TokenPair]:
        """`open` inside a larger write."""
        device = DeviceId(device_id or random_string(_DEVICE_ID_LENGTH, _CAPITALS))
        if device_id is not None:
            await self._token_store.delete_of_devices(transaction, user_id, [device])
        await self._device_store.ensure(transaction, user_id, device, display_name, self._clock.now_ms())
        return device, await self._tokens.issue(transaction, user_id, device, refreshable=refreshable)

    async def logout(self, requester: Requester) -> None:
        """End the session of the device that asks."""
        if requester.device_id is not None:
            await self._devices.delete(requester.user_id, [requester.device_id])

    async def logout_all(self, user_id: UserId) -> None:
        """End all sessions of a user."""
        await self._devices.delete_all(user_id)
        await self._database.write(lambda t: self._token_store.delete_of_user(t, user_id))
