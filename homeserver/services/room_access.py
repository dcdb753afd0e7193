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
    """A room as somebody may read it; `snapshot_nid` is None for the room as it is now."""

    room_id: RoomId
    room_nid: int
    snapshot_nid: int | None


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
            history = await self._visibility.history(user_id, room_nid)
            if history.at(row.stream_id - 1) == "join":
                return RoomAccess(room_id, room_nid, await self._rooms.snapshot_at(room_id, row.stream_id))
            if history.joined_after(0):
                # Invited or knocking anew: as it was when they went.
                return RoomAccess(
                    room_id, room_nid, await self._rooms.snapshot_at(room_id, history.last_left())
                )
        raise Forbidden("You are not in this room")
