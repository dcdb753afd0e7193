"""The rooms that users of this server are in: of the others it hears nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.rooms.live_rooms import CREATE

if TYPE_CHECKING:
    from homeserver.ids import RoomId, ServerName
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.storage.memberships import MembershipStore
    from homeserver.storage.room_servers import RoomServerStore


class HostedRooms:
    """Tells whether somebody here is in a room."""

    def __init__(
        self,
        server_name: ServerName,
        live_rooms: LiveRooms,
        memberships: MembershipStore,
        others: RoomServerStore,
    ) -> None:
        self._server_name = server_name
        self._live_rooms = live_rooms
        self._memberships = memberships
        self._others = others

    async def hosts(self, room: LiveRoom) -> bool:
        """Whether a user of this server is joined to a room; from memory, unless a membership has changed."""
        if room.is_hosted is None:
            ours = await self._memberships.load_local_members(room.room_nid, self._server_name, 1)
            room.is_hosted = bool(ours)
        return room.is_hosted

    async def is_elsewhere(self, room_id: RoomId) -> bool:
        """Whether only other servers can say what is in a room: nobody here is in it, and it is not ours alone."""
        room = await self._live_rooms.find(room_id)
        if room is None or CREATE not in await self._live_rooms.state_entries(room, [CREATE]):
            return True
        return not await self.hosts(room) and bool(await self._others.load(room.room_nid))
