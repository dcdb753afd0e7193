"""What other servers tell of changes of their users' devices and keys (SS "Device Management").

An update changes the list that is kept here only if it certainly is the next one after those that are in it: it
follows the newest that was heard of, its `stream_id` is greater than any, and it can be understood. Of everything else
follows a doubt: the list is asked for anew before anybody is answered from it (`queries`); what was heard of before the
question is in the answer. Who shares a room with the user is told of each change, and of a doubt, since something has
changed then; but not again before somebody has been answered from the list.

`m.signing_key_update` has no number, so a lost one would not be missed: whatever is new in it is a doubt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from crypto.hashes import sha256
from homeserver.ids import DeviceId
from homeserver.services.remote_keys.answers import (
    MAX_DEVICES,
    is_device_id,
    read_cross_signing,
    read_device,
    read_name,
)
from homeserver.storage.remote_device_lists import RemoteDevice, RemoteDeviceList

if TYPE_CHECKING:
    from collections.abc import Collection

    from homeserver.ids import UserId
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.device_lists import DeviceListStore
    from homeserver.storage.remote_device_lists import RemoteDeviceListStore

_MAX_PREVIOUS = 20
_MAX_STREAM_ID = 2**63


class RemoteDevices:
    """Hears of changes."""

    def __init__(
        self,
        database: Database,
        store: RemoteDeviceListStore,
        device_lists: DeviceListStore,
        rooms: RoomReader,
        live_rooms: LiveRooms,
        hosted: HostedRooms,
    ) -> None:
        self._database = database
        self._store = store
        self._device_lists = device_lists
        self._rooms = rooms
        self._live_rooms = live_rooms
        self._hosted = hosted

    async def device_list_update(self, content: dict[str, Any], user_id: UserId) -> None:
        """An `m.device_list_update` of a user; durable when this returns."""
        stream_id = _stream_id(content.get("stream_id"))
        if stream_id is None or not await self._shares_a_room(user_id):
            return
        content_hash = sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hex()[:32]

        async def work(transaction: Transaction) -> None:
            one = await self._load(transaction, user_id)
            if one.heard.get(stream_id) == content_hash:
                # Exactly this came before: what it says is known, or in doubt already.
                return
            applied = (
                one.is_whole(self._database.epoch)
                and _is_next(one.heard, stream_id, content.get("prev_id"))
                and await self._apply(transaction, user_id, content)
            )
            one.has_heard(stream_id, content_hash)
            await self._heard(transaction, one, doubt=not applied)

        await self._database.write(work)

    async def signing_key_update(self, content: dict[str, Any], user_id: UserId) -> None:
        """An `m.signing_key_update` of a user; durable when this returns."""
        if not await self._shares_a_room(user_id):
            return
        told = read_cross_signing(user_id, content.get("master_key"), content.get("self_signing_key"))

        async def work(transaction: Transaction) -> None:
            one = await self._load(transaction, user_id)
            if one.is_whole(self._database.epoch):
                known = (await self._store.load_keys([user_id], transaction))[user_id]
                if known.cross_signing == told:
                    return
            await self._heard(transaction, one, doubt=True)

        await self._database.write(work)

    async def _load(self, transaction: Transaction, user_id: UserId) -> RemoteDeviceList:
        known = (await self._store.load([user_id], transaction)).get(user_id)
        # Of a user who was never asked for, somebody may have an answer from before they shared a room.
        return known or RemoteDeviceList(
            user_id, epoch=None, in_doubt=True, is_shown=True, heard_position=0, heard={}
        )

    async def _heard(self, transaction: Transaction, one: RemoteDeviceList, *, doubt: bool) -> None:
        """Store that something was heard of a user, and tell of a doubt."""
        if doubt:
            one.in_doubt = True
            if one.is_shown:
                one.is_shown = False
                await self._device_lists.note_change(transaction, one.user_id)
        one.heard_position = await transaction.next_position()
        await self._store.set_standing(transaction, one)

    async def _apply(self, transaction: Transaction, user_id: UserId, content: dict[str, Any]) -> bool:
        """Change one device as the update says, and tell of it if it is news; False where it cannot be understood."""
        if not is_device_id(content.get("device_id")):
            return False
        device_id = DeviceId(content["device_id"])
        devices = (await self._store.load_keys([user_id], transaction))[user_id].devices
        device: RemoteDevice | None = None
        if content.get("deleted") is not True:
            if content.get("keys") is None:
                # "May be absent if the device has no E2E keys": keys do not go away from a device.
                return device_id not in devices
            read = read_device(user_id, device_id, content["keys"])
            if read is None or (device_id not in devices and len(devices) >= MAX_DEVICES):
                return False
            device = RemoteDevice(read.keys, read_name(content.get("device_display_name")))
        if devices.get(device_id) != device:
            await self._store.set_device(transaction, user_id, device_id, device)
            await self._device_lists.note_change(transaction, user_id)
        return True

    async def _shares_a_room(self, user_id: UserId) -> bool:
        """Whether a user is in a room with somebody here: of others nothing is kept, and nobody is told."""
        for room_id, row in (await self._rooms.rooms_of(user_id)).items():
            if row.membership == "join":
                room = await self._live_rooms.find(room_id)
                if room is not None and await self._hosted.hosts(room):
                    return True
        return False


def _is_next(heard: Collection[int], stream_id: int, previous: Any) -> bool:
    """Whether an update follows the newest that was heard of, and no others but such."""
    return (
        isinstance(previous, list)
        and 0 < len(previous) <= _MAX_PREVIOUS
        and all(_stream_id(number) in heard for number in previous)
        and max(previous) == max(heard)
        and stream_id > max(heard)
    )


def _stream_id(value: Any) -> int | None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_STREAM_ID
    return value if is_one else None
