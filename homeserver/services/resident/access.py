"""Which servers are answered about which rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, NotFound
from homeserver.eventgraph.server_acls import SERVER_ACL, lets_in

if TYPE_CHECKING:
    from homeserver.ids import RoomId, ServerName
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.rooms.room_servers import RoomServers


class ResidentAccess:
    """Lets servers ask about rooms that this server is in."""

    def __init__(self, live_rooms: LiveRooms, servers: RoomServers) -> None:
        self._live_rooms = live_rooms
        self._servers = servers

    async def room(self, origin: ServerName, room_id: RoomId) -> LiveRoom:
        """A room that this server is in and that lets the other one in; `NotFound` or `Forbidden`."""
        room = await self._live_rooms.find(room_id)
        if room is None or not await self._servers.is_ours(room):
            raise NotFound("Nobody of this server is in this room")
        await self.check_acl(origin, room)
        return room

    async def check_acl(self, origin: ServerName, room: LiveRoom) -> None:
        """`Forbidden` where the room's server ACL denies access (SS "Server Access Control Lists")."""
        acl = (await self._live_rooms.state_entries(room, [SERVER_ACL])).get(SERVER_ACL)
        if not lets_in(acl, origin):
            raise Forbidden("Your server is denied access to this room")

    async def shared_room(self, origin: ServerName, room_id: RoomId) -> LiveRoom:
        """The same, and the other server is in it, too."""
        room = await self.room(origin, room_id)
        if not await self._servers.is_in(room, origin):
            raise Forbidden("Nobody of your server is in this room")
        return room
