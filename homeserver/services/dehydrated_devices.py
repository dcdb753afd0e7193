"""Dehydrated devices (MSC3814): a device that waits on the server, sealed, for its user's next login.

To everybody else it is a device like any other: it has keys, and messages are sent to it. Only its user can wake it:
whoever does takes its data and reads its messages, which stay until the device is replaced or deleted. So a client that
is interrupted can begin anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, InvalidParam, NotFound, TooLarge, UnknownToken
from homeserver.services.device_keys import KeyUpload
from homeserver.services.devices import check_device_id, check_device_name
from homeserver.storage.dehydrated_devices import DehydratedDevice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.clock import Clock
    from homeserver.ids import DeviceId, UserId
    from homeserver.services.device_keys import DeviceKeys
    from homeserver.services.devices import Devices
    from homeserver.services.requester import Requester
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.dehydrated_devices import DehydratedDeviceStore
    from homeserver.storage.devices import DeviceStore
    from homeserver.storage.to_device import ToDeviceStore
    from homeserver.views.tokens import Tokens

MAX_DATA_BYTES = 65_536
_END_OF_LOG = 2**63 - 1


@dataclass(frozen=True, slots=True)
class NewDehydratedDevice:
    """What a client uploads: the sealed device, as JSON, and its public keys."""

    device_id: DeviceId
    device_data: bytes
    display_name: str | None
    device_keys: dict[str, Any]
    one_time_keys: Mapping[str, Any]
    fallback_keys: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MessagesOfDehydratedDevice:
    """Some of its messages, JSON as they go out, the token from which on to read, and whether something follows."""

    messages: list[bytes]
    next_batch: str
    is_last: bool


class DehydratedDevices:
    """Keeps them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        store: DehydratedDeviceStore,
        devices: Devices,
        device_store: DeviceStore,
        keys: DeviceKeys,
        inboxes: ToDeviceStore,
        tokens: Tokens,
    ) -> None:
        self._database = database
        self._clock = clock
        self._store = store
        self._devices = devices
        self._device_store = device_store
        self._keys = keys
        self._inboxes = inboxes
        self._tokens = tokens

    async def get(self, user_id: UserId) -> DehydratedDevice:
        """The dehydrated device of a user; `NotFound` where there is none."""
        device = await self._store.get(user_id)
        if device is None:
            raise _none()
        return device

    async def replace(self, requester: Requester, new: NewDehydratedDevice) -> None:
        """Put a device in the place of the one that there was, whose keys and messages go; all of it or nothing.

        The same device once more is an upload whose answer was lost: it keeps its messages, and none of its one-time
        keys is given out again. Raises `InvalidParam`, `TooLarge` and what the upload of keys raises.
        """
        user_id, device_id = requester.user_id, new.device_id
        check_device_id(device_id)
        check_device_name(new.display_name)
        if len(new.device_data) > MAX_DATA_BYTES:
            raise TooLarge(f"The data of a dehydrated device has at most {MAX_DATA_BYTES} bytes")
        keys = KeyUpload.read(user_id, device_id, new.device_keys, new.one_time_keys, new.fallback_keys)

        async def work(transaction: Transaction) -> None:
            if requester.device_id is not None and not await self._device_store.exists(
                transaction, user_id, requester.device_id
            ):
                # It was deleted, perhaps with the account, since the request came in.
                raise UnknownToken("Unknown access token")
            old = await self._store.get(user_id, transaction)
            is_same = old is not None and old.device_id == device_id
            if not is_same and await self._device_store.exists(transaction, user_id, device_id):
                raise InvalidParam("This is the id of a device that is not dehydrated")
            await self._devices.check_free_in(transaction, user_id, device_id)
            if old is not None and not (is_same and await self._keys.has_in(transaction, keys)):
                await self._devices.delete_in(transaction, user_id, [old.device_id])
            now = self._clock.now_ms()
            await self._device_store.ensure(transaction, user_id, device_id, new.display_name, now)
            await self._keys.upload_in(transaction, keys)
            await self._store.set(transaction, user_id, DehydratedDevice(device_id, new.device_data))

        await self._database.write(work)

    async def delete(self, user_id: UserId) -> DeviceId:
        """Delete the dehydrated device of a user with all that is kept for it; `NotFound` where there is none."""

        async def work(transaction: Transaction) -> DeviceId | None:
            device = await self._store.get(user_id, transaction)
            if device is None:
                return None
            await self._devices.delete_in(transaction, user_id, [device.device_id])
            return device.device_id

        device_id = await self._database.write(work)
        if device_id is None:
            raise _none()
        return device_id

    async def messages(
        self, user_id: UserId, device_id: str, token: str | None, limit: int
    ) -> MessagesOfDehydratedDevice:
        """The messages of a dehydrated device in the order in which they came, from a token on; nothing goes by it.

        Raises `Forbidden` where this is not the user's dehydrated device, `InvalidParam` for a token of something else.
        """
        device = await self._store.get(user_id)
        if device is None or device.device_id != device_id:
            raise Forbidden("This is not your dehydrated device")
        kind = f"dehydrated {user_id} {device_id}"
        after = 0 if token is None else self._tokens.read_offset(kind, token)
        batch = await self._inboxes.load_batch(
            user_id, device.device_id, after=after, upto=_END_OF_LOG, limit=limit
        )
        return MessagesOfDehydratedDevice(
            batch.messages, self._tokens.offset(kind, batch.last), batch.is_last
        )


def _none() -> NotFound:
    return NotFound("There is no dehydrated device")
