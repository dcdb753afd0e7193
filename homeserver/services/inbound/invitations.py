"""Invites of this server's users that another server brings (SS "Inviting to a room")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, InvalidParam, InviteBlocked, MatrixError
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.receiving import read_pdu
from homeserver.eventgraph.room_versions import ROOM_VERSIONS
from homeserver.eventgraph.signing import countersigned
from homeserver.ids import UserId, is_user_id, server_name_of
from homeserver.services.memberships_elsewhere import shown_of
from homeserver.services.resident.member_events import SignedMemberEvent, read_member_event
from homeserver.views.client_events import stripped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crypto.keys import SigningKey
    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import ServerName
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.rooms.room_servers import RoomServers
    from homeserver.services.inbound.queues import RoomQueues
    from homeserver.services.inbound.sources import SignatureCheck
    from homeserver.services.memberships_elsewhere import MembershipsElsewhere
    from homeserver.services.resident.access import ResidentAccess
    from homeserver.storage.accounts import AccountStore
    from homeserver.views.invite_permission import InvitesBlocked

_MAX_STATE = 50


@dataclass(frozen=True, slots=True)
class SentInvite:
    """What came with an invite."""

    event: SignedMemberEvent
    room_version: str
    invite_room_state: Sequence[Any]


class Invitations:
    """Checks, signs and notes invites."""

    def __init__(
        self,
        server_name: ServerName,
        key: SigningKey,
        access: ResidentAccess,
        live_rooms: LiveRooms,
        servers: RoomServers,
        accounts: AccountStore,
        invites_blocked: InvitesBlocked,
        signatures: SignatureCheck,
        elsewhere: MembershipsElsewhere,
        queues: RoomQueues,
    ) -> None:
        self._server_name = server_name
        self._key = key
        self._access = access
        self._live_rooms = live_rooms
        self._servers = servers
        self._accounts = accounts
        self._invites_blocked = invites_blocked
        self._signatures = signatures
        self._elsewhere = elsewhere
        self._queues = queues

    async def receive(self, sent: SentInvite) -> Event:
        """The invite with our signature; where nobody here is in the room, the user is told of it now.

        Where somebody is, it comes into the room with a transaction. Raises `InvalidParam`, `Forbidden`, and
        `M_INCOMPATIBLE_ROOM_VERSION`.
        """
        version = ROOM_VERSIONS.get(sent.room_version)
        if version is None:
            raise MatrixError(
                "This server does not support the version of this room",
                errcode="M_INCOMPATIBLE_ROOM_VERSION",
                room_version=sent.room_version,
            )
        event = read_member_event(version, sent.event)
        target = event.state_key or ""
        if not is_user_id(target) or server_name_of(target) != self._server_name:
            raise InvalidParam("The invited user is not of this server")
        if event.event_id not in await self._signatures.rightly_signed([event]):
            raise InvalidParam("The invite is not signed as it must be")
        account = await self._accounts.get(UserId(target))
        if account is None or account.deactivated_ts is not None:
            raise Forbidden("This user cannot be invited")
        if await self._invites_blocked.of(account.user_id):
            raise InviteBlocked
        signed = countersigned(event, self._server_name, self._key)
        room = await self._live_rooms.find(event.room_id)
        if room is not None:
            await self._access.check_acl(sent.event.origin, room)
            # The first version of the endpoint does not tell versions 1 and 2 apart.
            if room.version is not version and not (
                room.version.event_ids_are_given and version.event_ids_are_given
            ):
                raise InvalidParam(f"To this server the room is of version {room.version.identifier}")
            if await self._servers.is_ours(room):
                row = await self._elsewhere.membership(room.room_id, account.user_id)
                if row is not None and row.membership == "join":
                    # Who is in a room is not invited: this server has missed how the user came to be out of it, and would
                    # not be sent the invite either. So it waits for what it follows.
                    await self._queues.add(room, sent.event.origin, [signed])
                return signed
        state = await self._stripped_state(version, event, sent.invite_room_state)
        await self._elsewhere.note(version if room is None else room.version, signed, state)
        return signed

    async def _stripped_state(
        self, version: RoomVersion, invite: Event, sent: Sequence[Any]
    ) -> list[dict[str, Any]]:
        """What the user is shown of the room, the invite itself among it."""
        if len(sent) > _MAX_STATE:
            raise InvalidParam(f"`invite_room_state` has more than {_MAX_STATE} events")
        if version.room_id_is_create_hash:
            state = [stripped(event) for event in await self._checked(version, invite, sent)]
        else:
            # "... servers MAY apply to room versions 1 through 11": many send less than whole events.
            state = shown_of(sent)
        return [*state, stripped(invite)]

    async def _checked(self, version: RoomVersion, invite: Event, sent: Sequence[Any]) -> list[Event]:
        try:
            events = [read_pdu(version, pdu) for pdu in sent]
        except EventRefused as error:
            raise InvalidParam(f"`invite_room_state` holds what is no event: {error}") from error
        if any(event.room_id != invite.room_id or event.state_key is None for event in events):
            raise InvalidParam("`invite_room_state` holds what is not state of this room")
        if not any(event.key == ("m.room.create", "") for event in events):
            raise InvalidParam("`invite_room_state` lacks the create event", errcode="M_MISSING_PARAM")
        signed = await self._signatures.rightly_signed(events)
        if any(event.event_id not in signed for event in events):
            raise InvalidParam("`invite_room_state` holds an event that is not signed as it must be")
        return events
