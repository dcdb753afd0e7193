"""Spaces as another server may see them (SS "Spaces")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import NotFound
from homeserver.ids import RoomId
from homeserver.services.room_summaries import (
    is_open,
    is_world_readable,
    rooms_that_let_in,
    summary_of,
)
from homeserver.services.spaces import with_children

if TYPE_CHECKING:
    from homeserver.ids import ServerName
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.rooms.reader import RoomOutline
    from homeserver.rooms.room_servers import RoomServers
    from homeserver.services.room_summaries import RoomSummaries
    from homeserver.services.spaces import Spaces
    from homeserver.storage.memberships import MembershipStore

_MAX_CHILDREN = 1_000
_AT_ONCE = 100
_MAX_CONDITIONS = 100


class SpaceAnswers:
    """One step of the tree of a space: the asking server walks on by itself."""

    def __init__(
        self,
        live_rooms: LiveRooms,
        spaces: Spaces,
        summaries: RoomSummaries,
        servers: RoomServers,
        memberships: MembershipStore,
    ) -> None:
        self._live_rooms = live_rooms
        self._spaces = spaces
        self._summaries = summaries
        self._servers = servers
        self._memberships = memberships

    async def hierarchy(self, origin: ServerName, room_id: RoomId, *, suggested_only: bool) -> dict[str, Any]:
        """A space with its children, in the form of `GET /hierarchy/{roomId}`; `NotFound` where it may not be seen.

        Children of which this server knows nothing are left out.
        """
        room = (await self._known([room_id])).get(room_id)
        if room is None or not await self._may_know(room, origin):
            raise NotFound("Unknown room")
        children = (await self._spaces.children(room, suggested_only=suggested_only))[:_MAX_CHILDREN]
        names = [RoomId(child.state_key or "") for child in children]
        seen: list[dict[str, Any]] = []
        unseen: list[RoomId] = []
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            known = await self._known(some)
            for name in some:
                child = known.get(name)
                if child is None:
                    continue
                if await self._may_know(child, origin):
                    seen.append(summary_of(child))
                else:
                    unseen.append(name)
        return {
            "room": with_children(room, children),
            "children": seen,
            "inaccessible_children": unseen,
        }

    async def _known(self, room_ids: list[RoomId]) -> dict[RoomId, RoomOutline]:
        """Those of these rooms that this server is in: of others it may know the past only."""
        known = await self._summaries.outlines(room_ids)
        return {room_id: outline for room_id, outline in known.items() if await self._is_ours(room_id)}

    async def _is_ours(self, room_id: RoomId) -> bool:
        room = await self._live_rooms.find(room_id)
        return room is not None and await self._servers.is_ours(room)

    async def _is_in(self, origin: ServerName, room_id: RoomId) -> bool:
        room = await self._live_rooms.find(room_id)
        return room is not None and await self._servers.is_in(room, origin)

    async def _may_know(self, room: RoomOutline, origin: ServerName) -> bool:
        """Whether a user of the server could come into a room, or read it."""
        if is_world_readable(room) or is_open(room) or await self._is_in(origin, room.room_id):
            return True
        if await self._memberships.is_server_invited(room.room_nid, origin):
            return True
        for room_id in rooms_that_let_in(room)[:_MAX_CONDITIONS]:
            if await self._is_ours(room_id) and await self._is_in(origin, room_id):
                return True
        return False
