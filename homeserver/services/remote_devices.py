"""The devices of other servers' users: what changed is told to those who share a room with them (SS "Device Management").

Nothing of these devices is kept here: whoever needs their keys is answered with what their server says then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.storage.database import Database
    from homeserver.storage.device_lists import DeviceListStore


class RemoteDevices:
    """Hears of changes."""

    def __init__(self, database: Database, device_lists: DeviceListStore, rooms: RoomReader) -> None:
        self._database = database
        self._device_lists = device_lists
        self._rooms = rooms

    async def device_list_update(self, content: dict[str, Any], user_id: UserId) -> None:  # noqa: ARG002
        """An `m.device_list_update` of a user."""
        await self._changed(user_id)

    async def signing_key_update(self, content: dict[str, Any], user_id: UserId) -> None:  # noqa: ARG002
        """An `m.signing_key_update` of a user."""
        await self._changed(user_id)

    async def _changed(self, user_id: UserId) -> None:
        rooms = await self._rooms.rooms_of(user_id)
        if any(row.membership == "join" for row in rooms.values()):
            await self._database.write(lambda t: self._device_lists.note_change(t, user_id))
