"""Coming into rooms and going out of them: join, invite, leave, kick, ban, unban, knock, forget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import BadJson, Forbidden, InvalidParam, MatrixError, NotFound
from homeserver.ids import RoomAlias, RoomId, UserId, is_room_alias, is_room_id, is_user_id, server_name_of
from homeserver.services.directory import ResolvedAlias
from homeserver.services.event_writer import NewEvent
from homeserver.services.restricted_joins import is_restricted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.ids import EventId, ServerName
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.memberships import Memberships
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.account_data import AccountData
    from homeserver.services.directory import Directory
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.profiles import Profiles
    from homeserver.services.remote_departures import RemoteDepartures
    from homeserver.services.remote_invites import RemoteInvites
    from homeserver.services.remote_joins import RemoteJoins
    from homeserver.services.requester import Requester
    from homeserver.services.restricted_joins import RestrictedJoins
    from homeserver.storage.accounts import AccountStore
    from homeserver.storage.database import Database
    from homeserver.storage.memberships import MembershipRow, MembershipStore

_JOIN_RULES = ("m.room.join_rules", "")
_GUEST_ACCESS = ("m.room.guest_access", "")
_TOMBSTONE = ("m.room.tombstone", "")
_MAX_SERVERS = 5
_UNABLE_TO_GRANT = "M_UNABLE_TO_GRANT_JOIN"


class Membership:
    """Changes memberships."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        rooms: RoomReader,
        memberships: Memberships,
        store: MembershipStore,
        accounts: AccountStore,
        writer: EventWriter,
        profiles: Profiles,
        directory: Directory,
        account_data: AccountData,
        hosted: HostedRooms,
        remote: RemoteJoins,
        remote_invites: RemoteInvites,
        departures: RemoteDepartures,
        restricted: RestrictedJoins,
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._rooms = rooms
        self._memberships = memberships
        self._store = store
        self._accounts = accounts
        self._writer = writer
        self._profiles = profiles
        self._directory = directory
        self._account_data = account_data
        self._hosted = hosted
        self._remote = remote
        self._remote_invites = remote_invites
        self._departures = departures
        self._restricted = restricted

    async def resolve(self, room_id_or_alias: str) -> ResolvedAlias:
        """The room that an id or alias stands for, and servers that may be in it; `InvalidParam` or `NotFound`."""
        if is_room_alias(room_id_or_alias):
            return await self._directory.resolve(RoomAlias(room_id_or_alias))
        if not is_room_id(room_id_or_alias):
            raise InvalidParam("This is neither a room id nor an alias")
        return ResolvedAlias(RoomId(room_id_or_alias), [])

    async def join(
        self, requester: Requester, room_id: RoomId, content: dict[str, Any], via: Sequence[ServerName] = ()
    ) -> None:
        """Come into a room, by way of one of the servers `via` where nobody here is in it; nothing for a member."""
        user_id = requester.user_id
        row = await self._rooms.membership(room_id, user_id)
        if row is not None and row.membership == "join":
            return
        if await self._hosted.is_elsewhere(room_id):
            if requester.is_guest:
                raise Forbidden("Guests may not join this room", errcode="M_GUEST_ACCESS_FORBIDDEN")
            joined = {**content, **await self._profiles.member_content(user_id), "membership": "join"}
            servers = [*_candidates(row, room_id, via), *await self._servers_of_replaced(user_id, room_id)]
            await self._remote.join(user_id, room_id, servers, joined)
            await self.carry_over(user_id, room_id)
            return
        joined = {**content, **await self._profiles.member_content(user_id), "membership": "join"}
        await self._join_here(requester, room_id, joined, row, via)
        await self.carry_over(user_id, room_id)

    async def _join_here(
        self,
        requester: Requester,
        room_id: RoomId,
        content: dict[str, Any],
        row: MembershipRow | None,
        via: Sequence[ServerName] = (),
    ) -> EventId:
        """Come into a room that this server is in; by way of another one where only that may let the user in."""
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
        return await self._write(user_id, room_id, user_id, content)

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

    async def set(
        self, requester: Requester, room_id: RoomId, state_key: str, content: dict[str, Any]
    ) -> EventId:
        """Set a member event by hand; whoever comes in that way needs what they need by the front door."""
        user_id = requester.user_id
        membership = content.get("membership")
        if not isinstance(membership, str):
            raise BadJson("`membership` is missing")
        if not is_user_id(state_key):
            raise BadJson("The state key of a member event is a user id")
        target = UserId(state_key)
        if membership == "invite" and await self.check_invitee(target) and not self._is_ours(target):
            new = NewEvent("m.room.member", content, user_id, state_key=target)
            return await self._remote_invites.invite(room_id, new)
        if membership == "join" and target == user_id:
            content = {k: v for k, v in content.items() if k != "join_authorised_via_users_server"}
            row = await self._rooms.membership(room_id, user_id)
            before = row.membership if row is not None else "leave"
            if before != "join":
                event_id = await self._join_here(requester, room_id, content, row)
                await self.carry_over(user_id, room_id)
                return event_id
        return await self._write(user_id, room_id, target, content)

    async def knock(
        self, requester: Requester, room_id: RoomId, reason: str | None, via: Sequence[ServerName] = ()
    ) -> None:
        """Ask to be let in, by way of one of the servers `via` where nobody here is in the room."""
        row = await self._rooms.membership(room_id, requester.user_id)
        if row is not None and row.membership == "knock":
            return
        content = _with_reason(
            {**await self._profiles.member_content(requester.user_id), "membership": "knock"}, reason
        )
        if await self._hosted.is_elsewhere(room_id):
            servers = _candidates(row, room_id, via)
            await self._departures.knock(requester.user_id, room_id, servers, content)
            return
        await self._write(requester.user_id, room_id, requester.user_id, content)

    async def invite(
        self, requester: Requester, room_id: RoomId, user_id: str, reason: str | None, **content: Any
    ) -> None:
        """Invite somebody; inviting again who is invited already changes nothing."""
        target = await self.check_invitee(user_id)
        row = await self._rooms.membership(room_id, target)
        await self._check_in_room(requester.user_id, room_id)
        if row is not None and row.membership == "invite":
            return
        await self.invite_in_name_of(requester.user_id, room_id, target, _with_reason(content, reason))

    async def invite_in_name_of(
        self, sender: UserId, room_id: RoomId, target: UserId, content: dict[str, Any]
    ) -> None:
        """Invite a user who can be invited; the room says whether the sender may."""
        invite = {**await self._profiles.member_content(target), **content, "membership": "invite"}
        if self._is_ours(target):
            await self._write(sender, room_id, target, invite)
        else:
            new = NewEvent("m.room.member", invite, sender, state_key=target)
            await self._remote_invites.invite(room_id, new)

    async def check_invitee(self, user_id: str) -> UserId:
        """A user who can be invited; `InvalidParam` for what is no user id, `NotFound` for an unknown user of ours."""
        if not is_user_id(user_id):
            raise InvalidParam("This is not a user id")
        if self._is_ours(UserId(user_id)) and not await self._accounts.exists(UserId(user_id)):
            raise NotFound(f"There is no user {user_id}")
        return UserId(user_id)

    async def leave(self, user_id: UserId, room_id: RoomId, reason: str | None = None) -> None:
        """Leave a room, reject an invite, take back a knock; does nothing for who is out already."""
        was_joining = await self._remote.cancel(user_id, room_id)
        row = await self._rooms.membership(room_id, user_id)
        if row is None and was_joining:
            return
        if row is None:
            raise Forbidden("You are not in this room")
        if row.membership == "leave":
            return
        content = _with_reason({"membership": "leave"}, reason)
        if row.membership in ("invite", "knock") and await self._hosted.is_elsewhere(room_id):
            await self._departures.leave(row, content)
        else:
            await self._write(user_id, room_id, user_id, content)

    async def leave_all(self, user_id: UserId) -> None:
        """Leave every room, invites and knocks included."""
        for room_id, row in (await self._rooms.rooms_of(user_id)).items():
            if row.membership in ("join", "invite", "knock"):
                try:
                    await self.leave(user_id, room_id)
                except MatrixError:
                    continue

    async def remove_guests(self, room_id: RoomId) -> None:
        """Let the guests go where they may be no longer.

        "If the m.room.guest_access event is changed to stop this from being the case, the server MUST set those
        users' m.room.member state to leave."
        """
        if _guests_can_join(await self._rooms.state_entries(room_id, [_GUEST_ACCESS])):
            return
        for user_id in await self._store.load_guests(await self._rooms.room_nid(room_id)):
            await self.leave(user_id, room_id)

    async def kick(self, requester: Requester, room_id: RoomId, user_id: str, reason: str | None) -> None:
        """Put somebody out of a room, or take back their invite."""
        row = await self._target(requester, room_id, user_id)
        if row not in ("join", "invite", "knock"):
            raise Forbidden("This user is not in the room")
        await self._write(
            requester.user_id, room_id, UserId(user_id), _with_reason({"membership": "leave"}, reason)
        )

    async def ban(self, requester: Requester, room_id: RoomId, user_id: str, reason: str | None) -> None:
        """Put somebody out of a room, and let them not come back."""
        await self._target(requester, room_id, user_id)
        target = UserId(user_id)
        content = {**await self._profiles.member_content(target), "membership": "ban"}
        await self._write(requester.user_id, room_id, target, _with_reason(content, reason))

    async def unban(self, requester: Requester, room_id: RoomId, user_id: str, reason: str | None) -> None:
        """Take a ban back."""
        if await self._target(requester, room_id, user_id) != "ban":
            raise Forbidden("This user is not banned from the room", errcode="M_BAD_STATE")
        await self._write(
            requester.user_id, room_id, UserId(user_id), _with_reason({"membership": "leave"}, reason)
        )

    async def forget(self, requester: Requester, room_id: RoomId) -> None:
        """Let a room that one has left vanish; `MatrixError` for a room that one is in."""
        row = await self._rooms.membership(room_id, requester.user_id)
        if row is None:
            raise NotFound("Unknown room")
        if row.membership in ("join", "invite", "knock"):
            raise MatrixError("Leave the room before forgetting it", errcode="M_UNKNOWN")
        await self._database.write(lambda t: self._store.forget(t, requester.user_id, row.room_nid))
        self._memberships.invalidate(requester.user_id)

    async def joined_rooms(self, user_id: UserId) -> list[RoomId]:
        """The rooms that a user is in."""
        rooms = await self._rooms.rooms_of(user_id)
        return [room_id for room_id, row in rooms.items() if row.membership == "join"]

    def _is_ours(self, user_id: UserId) -> bool:
        return server_name_of(user_id) == self._server_name

    # -- parts -----------------------------------------------------------------------------------------

    async def _write(
        self, sender: UserId, room_id: RoomId, target: UserId, content: dict[str, Any]
    ) -> EventId:
        return await self._writer.write(room_id, NewEvent("m.room.member", content, sender, state_key=target))

    async def _joinable_state(self, requester: Requester, room_id: RoomId) -> dict[StateKey, Event]:
        """The state that decides about joining; `Forbidden` for guests where they may not join."""
        state = await self._rooms.state_entries(room_id, [_JOIN_RULES, _GUEST_ACCESS])
        if requester.is_guest and not _guests_can_join(state):
            raise Forbidden("Guests may not join this room", errcode="M_GUEST_ACCESS_FORBIDDEN")
        return state

    async def _target(self, requester: Requester, room_id: RoomId, user_id: str) -> str:
        """The membership of somebody whom a member wants to kick, ban or unban."""
        if not is_user_id(user_id):
            raise InvalidParam("This is not a user id")
        await self._check_in_room(requester.user_id, room_id)
        row = await self._rooms.membership(room_id, UserId(user_id))
        return row.membership if row is not None else "leave"

    async def _check_in_room(self, user_id: UserId, room_id: RoomId) -> None:
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")

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


def _candidates(row: MembershipRow | None, room_id: RoomId, via: Sequence[ServerName]) -> list[ServerName]:
    """Servers that may be in a room: those that were named, that of whoever invited, that which made the room."""
    candidates = list(via)
    if row is not None and row.membership == "invite":
        candidates.insert(0, server_name_of(row.sender))
    if maker := server_name_of(room_id):
        candidates.append(maker)
    return candidates


def _guests_can_join(state: dict[StateKey, Event]) -> bool:
    access = state.get(_GUEST_ACCESS)
    return access is not None and access.content.get("guest_access") == "can_join"


def _with_reason(content: dict[str, Any], reason: str | None) -> dict[str, Any]:
    if reason is not None:
        content["reason"] = reason
    return content
