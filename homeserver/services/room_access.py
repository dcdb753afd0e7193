"""Who may read a room, and as it was when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.errors import Forbidden

if TYPE_CHECKING:
    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.reader import RoomReader
    from homeserver.views.visibility import HistoryVisibility


@dataclass(frozen=True, slots=True)
class RoomAccess:
    """A room as somebody may read it: as it was at position `upto` of the log, or as it is now where that is None."""

    room_id: RoomId
    room_nid: int
    upto: int | None

    def bound(self, position: int) -> int:
        """A position of the log, or the last one that may be read where that lies before it."""
        return position if self.upto is None else min(position, self.upto)


class RoomAccessRules:
    """Decides about reading: members read the room as it is, former members as it was when they went."""

    def __init__(self, rooms: RoomReader, visibility: HistoryVisibility) -> None:
        self._rooms = rooms
        self._visibility = visibility

    async def check(self, user_id: UserId, room_id: RoomId) -> RoomAccess:
        """How a user may read a room; `Forbidden` where they may not, or there is none."""
        if not await self._rooms.exists(room_id):
            raise Forbidden("You are not in this room")
        room_nid = await self._rooms.room_nid(room_id)
        row = await self._rooms.membership(room_id, user_id)
        if row is not None and row.membership == "join":
            return RoomAccess(room_id, room_nid, None)
        visibility = await self._rooms.state_event(room_id, "m.room.history_visibility")
        if visibility is not None and visibility.content.get("history_visibility") == "world_readable":
            return RoomAccess(room_id, room_nid, None)
        if row is not None and not row.forgotten:
            # Whoever is invited or knocks anew still reads the room as it was when they went.
            left = (await self._visibility.history(row)).last_left()
            if left:
                return RoomAccess(room_id, room_nid, left)
        raise Forbidden("You are not in this room")
