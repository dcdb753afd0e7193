"""What users are to rooms: invite, knock, leave, kick, ban, unban, forget; how they come in stands in `joins`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.errors import BadJson, Forbidden, InvalidParam, InviteBlocked, MatrixError, NotFound
from homeserver.ids import UserId, is_user_id, server_name_of
from homeserver.services.event_writer import NewEvent
from homeserver.services.joins import GUEST_ACCESS, candidates, guests_can_join
from homeserver.services.suspension import check_not_suspended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import EventId, RoomId, ServerName
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.memberships import Memberships
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.event_writer import EventWriter
    from homeserver.services.joins import Joins
    from homeserver.services.profiles import Profiles
    from homeserver.services.remote_departures import RemoteDepartures
    from homeserver.services.remote_invites import RemoteInvites
    from homeserver.services.requester import Requester
    from homeserver.storage.accounts import AccountStore
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.memberships import MembershipStore
    from homeserver.storage.thread_subscriptions import ThreadSubscriptionStore
    from homeserver.views.invite_permission import InvitesBlocked


class Membership:
    """Changes memberships."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        rooms: RoomReader,
        memberships: Memberships,
        store: MembershipStore,
        thread_subscriptions: ThreadSubscriptionStore,
        accounts: AccountStore,
        writer: EventWriter,
        profiles: Profiles,
        hosted: HostedRooms,
        joins: Joins,
        invites_blocked: InvitesBlocked,
        remote_invites: RemoteInvites,
        departures: RemoteDepartures,
    ) -> None:
        self._server_name = server_name
        self._database = database
        self._rooms = rooms
        self._memberships = memberships
        self._store = store
        self._thread_subscriptions = thread_subscriptions
        self._accounts = accounts
        self._writer = writer
        self._profiles = profiles
        self._hosted = hosted
        self._joins = joins
        self._invites_blocked = invites_blocked
        self._remote_invites = remote_invites
        self._departures = departures

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
        if membership != "leave" or target != user_id:
            check_not_suspended(requester)
        if membership == "invite" and await self.check_invitee(target) and not self._is_ours(target):
            new = NewEvent("m.room.member", content, user_id, state_key=target)
            return await self._remote_invites.invite(room_id, new)
        if membership == "join" and target == user_id:
            content = {k: v for k, v in content.items() if k != "join_authorised_via_users_server"}
            row = await self._rooms.membership(room_id, user_id)
            before = row.membership if row is not None else "leave"
            if before != "join":
                return await self._joins.join_here(requester, room_id, content, row)
        return await self._write(user_id, room_id, target, content)

    async def knock(
        self, requester: Requester, room_id: RoomId, reason: str | None, via: Sequence[ServerName] = ()
    ) -> None:
        """Ask to be let in, by way of one of the servers `via` where nobody here is in the room."""
        check_not_suspended(requester)
        row = await self._rooms.membership(room_id, requester.user_id)
        if row is not None and row.membership == "knock":
            return
        content = _with_reason(
            {**await self._profiles.member_content(requester.user_id), "membership": "knock"}, reason
        )
        if await self._hosted.is_elsewhere(room_id):
            servers = candidates(row, room_id, via)
            await self._departures.knock(requester.user_id, room_id, servers, content)
            return
        await self._write(requester.user_id, room_id, requester.user_id, content)

    async def invite(
        self, requester: Requester, room_id: RoomId, user_id: str, reason: str | None, **content: Any
    ) -> None:
        """Invite somebody; inviting again who is invited already changes nothing.

        A user of another server is invited anew: they may have rejected the invite while nobody here could be told.
        """
        check_not_suspended(requester)
        target = await self.check_invitee(user_id)
        row = await self._rooms.membership(room_id, target)
        await self._check_in_room(requester.user_id, room_id)
        if row is not None and row.membership == "invite" and self._is_ours(target):
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
        """A user who can be invited.

        Raises `InvalidParam` for what is no user id; of users of ours `NotFound` for an unknown one, `Forbidden` with
        `M_INVITE_BLOCKED` for one who wants no invites.
        """
        if not is_user_id(user_id):
            raise InvalidParam("This is not a user id")
        target = UserId(user_id)
        if self._is_ours(target):
            if not await self._accounts.exists(target):
                raise NotFound(f"There is no user {user_id}")
            if await self._invites_blocked.of(target):
                raise InviteBlocked
        return target

    async def leave(self, user_id: UserId, room_id: RoomId, reason: str | None = None) -> None:
        """Leave a room, reject an invite, take back a knock; does nothing for who is out already."""
        was_joining = await self._joins.cancel(user_id, room_id)
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
        if guests_can_join(await self._rooms.state_entries(room_id, [GUEST_ACCESS])):
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

        async def work(transaction: Transaction) -> None:
            await self._store.forget(transaction, requester.user_id, row.room_nid)
            await self._thread_subscriptions.delete_of_room(transaction, requester.user_id, room_id)

        await self._database.write(work)
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

    async def _target(self, requester: Requester, room_id: RoomId, user_id: str) -> str:
        """The membership of somebody whom a member wants to kick, ban or unban."""
        check_not_suspended(requester)
        if not is_user_id(user_id):
            raise InvalidParam("This is not a user id")
        await self._check_in_room(requester.user_id, room_id)
        row = await self._rooms.membership(room_id, UserId(user_id))
        return row.membership if row is not None else "leave"

    async def _check_in_room(self, user_id: UserId, room_id: RoomId) -> None:
        row = await self._rooms.membership(room_id, user_id)
        if row is None or row.membership != "join":
            raise Forbidden("You are not in this room")


def _with_reason(content: dict[str, Any], reason: str | None) -> dict[str, Any]:
    if reason is not None:
        content["reason"] = reason
    return content
