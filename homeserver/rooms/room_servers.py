"""Which servers, this one included, have users in a room."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeserver.ids import ServerName
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.storage.room_servers import RoomServerStore


class RoomServers:
    """Answers from memory where a room is in use."""

    def __init__(self, server_name: ServerName, hosted: HostedRooms, others: RoomServerStore) -> None:
        self._server_name = server_name
        self._hosted = hosted
        self._others = others

    async def is_ours(self, room: LiveRoom) -> bool:
        """Whether a user of this server is joined to a room."""
        return await self._hosted.hosts(room)

    async def is_in(self, room: LiveRoom, server_name: ServerName) -> bool:
        """Whether a user of a server is joined to a room."""
        if server_name == self._server_name:
            return await self._hosted.hosts(room)
        return server_name in await self._others.load(room.room_nid)

    async def all_in(self, room: LiveRoom) -> set[ServerName]:
        """The servers whose users are joined to a room."""
        others = await self._others.load(room.room_nid)
        return {*others, self._server_name} if await self._hosted.hosts(room) else set(others)
