"""Whether users of other servers may join a restricted room through this one (SS "Restricted rooms")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, MatrixError
from homeserver.eventgraph.auth_member import membership_of
from homeserver.eventgraph.auth_rules import JOIN_RULES
from homeserver.services.restricted_joins import allowed_rooms, is_restricted

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import UserId
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.rooms.reader import RoomReader
    from homeserver.rooms.room_servers import RoomServers
    from homeserver.services.restricted_joins import RestrictedJoins

_MAX_CONDITIONS = 100


class JoinConditions:
    """Checks the conditions by the rooms that this server is in."""

    def __init__(
        self,
        live_rooms: LiveRooms,
        rooms: RoomReader,
        servers: RoomServers,
        restricted: RestrictedJoins,
    ) -> None:
        self._live_rooms = live_rooms
        self._rooms = rooms
        self._servers = servers
        self._restricted = restricted

    async def authoriser(self, room: LiveRoom, user_id: UserId) -> UserId | None:
        """Who of this server lets a user in; None where nobody needs to.

        Raises `Forbidden` where the user meets no condition, `M_UNABLE_TO_AUTHORISE_JOIN` where this server cannot
        know, `M_UNABLE_TO_GRANT_JOIN` where nobody here may let anybody in.
        """
        if not await self.apply(room, user_id):
            return None
        authoriser = await self._restricted.authoriser(room.room_id)
        if authoriser is None:
            raise MatrixError("Nobody of this server may let you in", errcode="M_UNABLE_TO_GRANT_JOIN")
        return authoriser

    async def apply(self, room: LiveRoom, user_id: UserId) -> bool:
        """Whether a user needs to meet a condition, and then does; raises as `authoriser` does where not."""
        member: StateKey = ("m.room.member", user_id)
        state = await self._live_rooms.state_entries(room, [JOIN_RULES, member])
        if not is_restricted(room.version, state) or membership_of(state, user_id) in (
            "invite",
            "join",
            "ban",
        ):
            return False
        await self._check_condition(user_id, state[JOIN_RULES])
        return True

    async def _check_condition(self, user_id: UserId, join_rules: Event) -> None:
        rooms = await self._rooms.rooms_of(user_id)
        allowed = allowed_rooms(join_rules)[:_MAX_CONDITIONS]
        knows_one = False
        for room_id in allowed:
            room = await self._live_rooms.find(room_id)
            # Of a room that it has left it does not know who is there.
            if room is None or not await self._servers.is_ours(room):
                continue
            knows_one = True
            row = rooms.get(room_id)
            if row is not None and row.membership == "join":
                return
        if allowed and not knows_one:
            raise MatrixError(
                "This server is in none of the rooms whose members may join",
                errcode="M_UNABLE_TO_AUTHORISE_JOIN",
            )
        raise Forbidden("You are in none of the rooms whose members may join this room")
