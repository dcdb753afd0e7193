"""Member events that other servers have signed come into rooms of ours (SS "Joining Rooms", "Knocking", "Leaving")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.errors import Forbidden, InvalidParam
from homeserver.eventgraph.auth_rules import auth_types_of, check_auth_rules
from homeserver.eventgraph.errors import AuthRuleViolated, EventRefused
from homeserver.eventgraph.hashing import has_right_content_hash
from homeserver.eventgraph.receiving import read_pdu
from homeserver.eventgraph.signing import countersigned
from homeserver.ids import server_name_of
from homeserver.rooms.live_rooms import CREATE
from homeserver.services.inbound.events import Unplaceable
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from crypto.keys import SigningKey
    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId, ServerName
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.services.inbound.events import InboundEvents
    from homeserver.services.inbound.sources import SignatureCheck
    from homeserver.services.resident.access import ResidentAccess
    from homeserver.services.resident.join_conditions import JoinConditions
    from homeserver.storage.events import EventStore
    from homeserver.storage.stored_event import StoredEvent

_AUTHORISER = "join_authorised_via_users_server"


@dataclass(frozen=True, slots=True)
class SignedMemberEvent:
    """What came with `send_join`, `send_knock` or `send_leave`."""

    origin: ServerName
    room_id: RoomId
    event_id: str
    membership: str
    pdu: dict[str, Any]


class MemberEvents:
    """Judges them like any other event, and gives them their place."""

    def __init__(
        self,
        server_name: ServerName,
        key: SigningKey,
        access: ResidentAccess,
        live_rooms: LiveRooms,
        events: EventStore,
        signatures: SignatureCheck,
        conditions: JoinConditions,
        inbound: InboundEvents,
    ) -> None:
        self._server_name = server_name
        self._key = key
        self._access = access
        self._live_rooms = live_rooms
        self._events = events
        self._signatures = signatures
        self._conditions = conditions
        self._inbound = inbound

    async def take(self, sent: SignedMemberEvent) -> tuple[LiveRoom, StoredEvent]:
        """Take in a member event; when this returns it is durable, and goes on to the other servers of the room.

        One that came before is answered as it was then. Raises `InvalidParam` for what is not the event that the
        endpoint takes, `Forbidden` where the room does not allow it.
        """
        room = await self._access.room(sent.origin, sent.room_id)
        event = read_member_event(room.version, sent)
        known = await self._events.get(event.event_id)
        if known is None or not known.has_state:
            event = await self._authorised(room, event)
            if event.event_id not in await self._signatures.rightly_signed([event]):
                raise InvalidParam("The event is not signed as it must be")
            await self._place(room, event)
            known = await self._events.get(event.event_id)
        if known is None or known.status is not Status.TIMELINE:
            raise Forbidden("The room does not allow this")
        return room, known

    async def _authorised(self, room: LiveRoom, event: Event) -> Event:
        """A join that a user of ours is to authorise, with our signature; every other event as it is."""
        authoriser = event.content.get(_AUTHORISER)
        if (
            event.membership != "join"
            or not room.version.has_restricted_join
            or not isinstance(authoriser, str)
            or server_name_of(authoriser) != self._server_name
        ):
            return event
        await self._conditions.apply(room, event.sender)
        return countersigned(event, self._server_name, self._key)

    async def _place(self, room: LiveRoom, event: Event) -> None:
        # What the room does not allow now is not even stored.
        state = await self._live_rooms.state_entries(room, {*auth_types_of(event), CREATE})
        try:
            check_auth_rules(event, state)
        except AuthRuleViolated as error:
            raise Forbidden(error.why) from error
        try:
            # "The resident server must also send the event to other servers participating in the room."
            await self._inbound.place(room, event, goes_out=True)
        except Unplaceable as error:
            raise InvalidParam(f"The event cannot be placed: {error}") from error


def read_member_event(version: RoomVersion, sent: SignedMemberEvent) -> Event:
    """The event as it was sent, if it is one that its endpoint takes; `InvalidParam` where not."""
    try:
        event = read_pdu(version, sent.pdu)
    except EventRefused as error:
        raise InvalidParam(f"This is no event of room version {version.identifier}: {error}") from error
    if not has_right_content_hash(version, {name: sent.pdu[name] for name in sent.pdu if name != "unsigned"}):
        raise InvalidParam("The content hash of the event is wrong")
    if event.event_id != sent.event_id:
        raise InvalidParam(f"The id of the event is {event.event_id}")
    if event.room_id != sent.room_id:
        raise InvalidParam("The event is of another room")
    if event.type != "m.room.member" or event.membership != sent.membership:
        raise InvalidParam(f"This is not the event of a membership `{sent.membership}`")
    if server_name_of(event.sender) != sent.origin:
        raise InvalidParam("The sender of the event is not a user of your server")
    if sent.membership != "invite" and event.state_key != event.sender:
        raise InvalidParam("The event is about somebody else")
    return event
