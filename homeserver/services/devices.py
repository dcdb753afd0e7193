"""Devices of a user: listed, renamed, deleted with all that belongs to them (CS "Device Management")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from homeserver.errors import Forbidden, InvalidParam, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.access_tokens import AccessTokenStore
    from homeserver.storage.cross_signing import CrossSigningStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.devices import Device, DeviceStore

MAX_ID_BYTES = 255
MAX_NAME_BYTES = 1_000


class KeptForDevices(Protocol):
    """What is kept for devices and goes with them."""

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop everything of some devices."""


class Devices:
    """What users do with their devices."""

    def __init__(
        self,
        database: Database,
        store: DeviceStore,
        tokens: AccessTokenStore,
        cross_signing: CrossSigningStore,
        kept: Sequence[KeptForDevices],
    ) -> None:
        self._database = database
        self._store = store
        self._tokens = tokens
        self._cross_signing = cross_signing
        self._kept = kept

    async def load(self, user_id: UserId) -> list[Device]:
        """All devices of a user."""
        return await self._store.load(user_id)

    async def get(self, user_id: UserId, device_id: DeviceId) -> Device:
        """One device; `NotFound` where there is none."""
        device = await self._store.get(user_id, device_id)
        if device is None:
            raise NotFound("Unknown device")
        return device

    async def rename(self, user_id: UserId, device_id: DeviceId, display_name: str | None) -> None:
        """Give a device another name; `NotFound` where there is none."""
        check_device_name(display_name)
        if not await self._database.write(lambda t: self._store.rename(t, user_id, device_id, display_name)):
            raise NotFound("Unknown device")

    async def check_free_in(self, transaction: Transaction, user_id: UserId, device_id: DeviceId) -> None:
        """Raise `Forbidden` where no device can have this id.

        "Servers MUST not allow devices to have the same IDs as cross-signing keys"
        """
        if await self._cross_signing.is_public_key(transaction, user_id, device_id):
            raise Forbidden("The device id is that of a cross-signing key")

    async def delete(self, user_id: UserId, device_ids: Sequence[DeviceId]) -> None:
        """Delete devices with their tokens and all that is kept for them; unknown ones are passed over."""
        await self._database.write(lambda t: self.delete_in(t, user_id, device_ids))

    async def delete_in(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Delete devices inside a larger write."""
        await self._tokens.delete_of_devices(transaction, user_id, device_ids)
        for kept in self._kept:
            await kept.delete_of_devices(transaction, user_id, device_ids)
        await self._store.delete(transaction, user_id, device_ids)

    async def delete_all_in(
        self, transaction: Transaction, user_id: UserId, *, but: DeviceId | None = None
    ) -> None:
        """Delete every device of a user, but one, inside a larger write."""
        devices = await self._store.load(user_id, transaction)
        await self.delete_in(
            transaction, user_id, [device.device_id for device in devices if device.device_id != but]
        )


def check_device_id(device_id: str) -> None:
    """Refuse a device id that could not be stored or sent; raises `InvalidParam`."""
    if not device_id or len(device_id.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES or "\x00" in device_id:
        raise InvalidParam(f"A device id is text of 1 to {MAX_ID_BYTES} bytes")


def check_device_name(display_name: str | None) -> None:
    """Refuse a name that could not be stored, or of absurd length; raises `InvalidParam`."""
    if display_name is None:
        return
    if len(display_name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES or "\x00" in display_name:
        raise InvalidParam(f"A device name is text of at most {MAX_NAME_BYTES} bytes")
