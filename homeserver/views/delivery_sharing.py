"""Who lets senders know that their messages have arrived, and in which rooms.

Everybody does, unless their account data says otherwise, in rooms that are not too large, on a server that keeps account
of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.views.account_data import AccountDataReading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.config import DeliveryStatusSettings
    from homeserver.storage.account_data import AccountDataStore
    from homeserver.storage.rooms import RoomRow, RoomStore

DELIVERY_STATUS = "dev.restante.delivery_status"
"""`{"share": false}` switches it off."""


class DeliverySharing(AccountDataReading[bool]):
    """Whether users share it, and which rooms are small enough."""

    def __init__(
        self, settings: DeliveryStatusSettings, account_data: AccountDataStore, rooms: RoomStore
    ) -> None:
        super().__init__(account_data, DELIVERY_STATUS, lambda _, content: content.get("share") is not False)
        self.is_on = settings.enabled
        self._max_members = settings.max_members
        self._rooms = rooms

    def allows_members(self, number: int) -> bool:
        """Whether a room with so many members is small enough."""
        return number <= self._max_members

    async def rooms_among(self, room_nids: Iterable[int]) -> dict[int, RoomRow]:
        """Those of these rooms that are small enough, by their numbers."""
        rooms = await self._rooms.load(room_nids)
        return {nid: row for nid, row in rooms.items() if self.allows_members(row.joined_members)}
