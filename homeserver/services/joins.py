"""Coming into rooms, by this server's own door or by way of another server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, MatrixError
from homeserver.ids import RoomId, server_name_of
from homeserver.services.event_writer import NewEvent
from homeserver.services.restricted_joins import is_restricted
from homeserver.services.suspension import check_not_suspended

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import EventId, ServerName, UserId
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.account_data import AccountData
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.profiles import Profiles
    from homeserver.services.remote_joins import RemoteJoins
    from homeserver.services.requester import Requester
    from homeserver.services.restricted_joins import RestrictedJoins
    from homeserver.storage.memberships import MembershipRow

GUEST_ACCESS = ("m.room.guest_access", "")
_JOIN_RULES = ("m.room.join_rules", "")
_TOMBSTONE = ("m.room.tombstone", "")
_MAX_SERVERS = 5
_UNABLE_TO_GRANT = "M_UNABLE_TO_GRANT_JOIN"


class Joins:
    """Brings users of this server into rooms."""

    def __init__(
        self,
        rooms: RoomReader,
        hosted: HostedRooms,
        writer: EventWriter,
        profiles: Profiles,
        account_data: AccountData,
        restricted: RestrictedJoins,
        remote: RemoteJoins,
    ) -> None:
        self._rooms = rooms
        self._hosted = hosted
        self._writer = writer
        self._profiles = profiles
        self._account_data = account_data
        self._restricted = restricted
        self._remote = remote

    async def join(
        self, requester: Requester, room_id: RoomId, content: dict[str, Any], via: Sequence[ServerName] = ()
    ) -> None:
        """Come into a room, by way of one of the servers `via` where nobody here is in it; nothing for a member."""
        check_not_suspended(requester)
        user_id = requester.user_id
        row = await self._rooms.membership(room_id, user_id)
        if row is not None and row.membership == "join":
            return
        is_elsewhere = await self._hosted.is_elsewhere(room_id)
        if is_elsewhere and requester.is_guest:
            raise Forbidden("Guests may not join this room", errcode="M_GUEST_ACCESS_FORBIDDEN")
        joined = {**content, **await self._profiles.member_content(user_id), "membership": "join"}
        if not is_elsewhere:
            await self.join_here(requester, room_id, joined, row, via)
            return
        servers = [*candidates(row, room_id, via), *await self._servers_of_replaced(user_id, room_id)]
        await self._remote.join(user_id, room_id, servers, joined)
        await self.carry_over(user_id, room_id)

    async def join_here(
        self,
        requester: Requester,
        room_id: RoomId,
        content: dict[str, Any],
        row: MembershipRow | None,
        via: Sequence[ServerName] = (),
    ) -> EventId:
        """Come into a room that this server is in; by way of another one where only that may let the user in.

        `row` is what the user is to the room so far, `content` the whole content of the member event.
        """
        event_id = await self._enter(requester, room_id, content, row, via)
        await self.carry_over(requester.user_id, room_id)
        return event_id

    async def _enter(
        self,
        requester: Requester,
        room_id: RoomId,
        content: dict[str, Any],
        row: MembershipRow | None,
        via: Sequence[ServerName],
    ) -> EventId:
        user_id = requester.user_id
        state = await self._joinable_state(requester, room_id)
        if row is None or row.membership != "invite":
            try:
                content |= await self._authorisation(requester, room_id, state)
            except MatrixError as error:
                # "... the joining server should try a different server."
                servers = await self._restricted.other_authorisers(room_id)
                if error.errcode != _UNABLE_TO_GRANT or not servers:
                    raise
                await self._remote.join(user_id, room_id, [*servers, *via], content)
                member = await self._rooms.state_event(room_id, "m.room.member", user_id)
                if member is None:
                    raise
                return member.event_id
        new = NewEvent("m.room.member", content, user_id, state_key=user_id)
        return await self._writer.write(room_id, new)

    async def cancel(self, user_id: UserId, room_id: RoomId) -> bool:
        """Give up coming into a room by way of another server; whether somebody was about to."""
        return await self._remote.cancel(user_id, room_id)

    async def carry_over(self, user_id: UserId, room_id: RoomId) -> None:
        """Give a room that somebody came into their settings for the room that it replaces (CS "Room Upgrades").

        The two must agree on that: no room takes the place of another by saying so.
        """
        create = await self._rooms.state_event(room_id, "m.room.create")
        predecessor = create.content.get("predecessor") if create is not None else None
        old = predecessor.get("room_id") if isinstance(predecessor, dict) else None
        if not isinstance(old, str) or await self._rooms.membership(RoomId(old), user_id) is None:
            return
        tombstone = await self._rooms.state_event(RoomId(old), "m.room.tombstone")
        if tombstone is not None and tombstone.content.get("replacement_room") == room_id:
            await self._account_data.carry_over(user_id, RoomId(old), room_id)

    async def _servers_of_replaced(self, user_id: UserId, room_id: RoomId) -> list[ServerName]:
        """Servers in the room of a user's that this one replaces: first that of whoever replaced it."""
        joined = [row for row in (await self._rooms.rooms_of(user_id)).values() if row.membership == "join"]
        states = await self._rooms.state_entries_of_rooms([row.room_nid for row in joined], [_TOMBSTONE])
        for row in joined:
            tombstone = states[row.room_nid].get(_TOMBSTONE)
            if tombstone is not None and tombstone.content.get("replacement_room") == room_id:
                others = sorted(await self._rooms.servers(row.room_id))
                return [server_name_of(tombstone.sender), *others[:_MAX_SERVERS]]
        return []

    # -- parts -----------------------------------------------------------------------------------------

    async def _joinable_state(self, requester: Requester, room_id: RoomId) -> dict[StateKey, Event]:
        """The state that decides about joining; `Forbidden` for guests where they may not join."""
        state = await self._rooms.state_entries(room_id, [_JOIN_RULES, GUEST_ACCESS])
        if requester.is_guest and not guests_can_join(state):
            raise Forbidden("Guests may not join this room", errcode="M_GUEST_ACCESS_FORBIDDEN")
        return state

    async def _authorisation(
        self, requester: Requester, room_id: RoomId, state: dict[StateKey, Event]
    ) -> dict[str, Any]:
        """What a member event says of who lets the user into a restricted room without an invite."""
        if not is_restricted(await self._rooms.version(room_id), state):
            return {}
        if not await self._restricted.meets_condition(requester.user_id, state[_JOIN_RULES]):
            raise Forbidden("You are in none of the rooms whose members may join this room")
        authoriser = await self._restricted.authoriser(room_id)
        if authoriser is None:
            raise Forbidden("Nobody of this server may let you in", errcode=_UNABLE_TO_GRANT)
        return {"join_authorised_via_users_server": authoriser}


def candidates(row: MembershipRow | None, room_id: RoomId, via: Sequence[ServerName]) -> list[ServerName]:
    """Servers that may be in a room: those that were named, that of whoever invited, that which made the room."""
    servers = list(via)
    if row is not None and row.membership == "invite":
        servers.insert(0, server_name_of(row.sender))
    if maker := server_name_of(room_id):
        servers.append(maker)
    return servers


def guests_can_join(state: Mapping[StateKey, Event]) -> bool:
    """Whether a room with this state lets guests in."""
    access = state.get(GUEST_ACCESS)
    return access is not None and access.content.get("guest_access") == "can_join"
