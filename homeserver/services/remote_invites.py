"""Inviting users of other servers (SS "Inviting to a room"): their server sees and signs the invite first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.errors import FederationError, Refused
from homeserver.errors import Forbidden, MatrixError
from homeserver.eventgraph.errors import EventRefused
from homeserver.eventgraph.receiving import read_pdu
from homeserver.eventgraph.signing import with_signatures_of
from homeserver.ids import server_name_of
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.other_servers import as_matrix_error, of_no_use
from homeserver.storage.stored_event import Status
from homeserver.views.client_events import stripped_state_keys

if TYPE_CHECKING:
    from typing import Any

    from federation.client import FederationClient
    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.rooms.reader import RoomReader
    from homeserver.services.event_writer import EventWriter, NewEvent
    from homeserver.services.inbound.events import InboundEvents
    from homeserver.services.policy_servers import PolicyServers

_SEEN_BY_V1 = ("1", "2")
_ATTEMPTS = 3


class RemoteInvites:
    """Sends invites to other servers, and into the room."""

    def __init__(
        self,
        client: FederationClient,
        live_rooms: LiveRooms,
        rooms: RoomReader,
        writer: EventWriter,
        inbound: InboundEvents,
        policy: PolicyServers,
    ) -> None:
        self._client = client
        self._live_rooms = live_rooms
        self._rooms = rooms
        self._writer = writer
        self._inbound = inbound
        self._policy = policy

    async def invite(self, room_id: RoomId, new: NewEvent) -> EventId:
        """Invite a user of another server with this member event; the answer is its id.

        Raises `Forbidden` where the room does not allow it, what the other server says where it refuses, and a
        `MatrixError` where it does not answer.
        """
        room = await self._live_rooms.get(room_id)
        for _ in range(_ATTEMPTS):
            event = await self._policy.signed(room, await self._writer.draft(room_id, new))
            signed = await self._signed(event)
            try:
                if await self._inbound.place(room, signed, goes_out=True) is Status.TIMELINE:
                    return signed.event_id
            except Unplaceable:
                # What it was built on could not be written.
                continue
            break
        raise Forbidden("The room does not allow this invite")

    async def _signed(self, event: Event) -> Event:
        """The event with the signature of the invited user's server."""
        destination = server_name_of(event.state_key or "")
        try:
            answer = await self._ask(destination, event)
            signed = read_pdu(event.version, answer)
        except Refused as error:
            raise as_matrix_error(error, of_our_making=True) from error
        except (FederationError, EventRefused) as error:
            raise of_no_use(destination, error) from error
        if signed.event_id != event.event_id:
            message = f"The server {destination} answered with another event"
            raise MatrixError(message, status=502)
        return with_signatures_of(destination, event, signed.pdu)

    async def _ask(self, destination: str, event: Event) -> dict[str, Any]:
        # "MUST contain the m.room.create event", and all "formatted according to the room version specification".
        keys = stripped_state_keys(event.state_key or "", event.sender)
        state = [one.pdu for one in (await self._rooms.state_entries(event.room_id, keys)).values()]
        version = event.version.identifier
        try:
            invited = await self._client.invite(
                destination,
                event.room_id,
                event.event_id,
                room_version=version,
                event=event.pdu,
                invite_room_state=state,
            )
        except Refused as error:
            if version not in _SEEN_BY_V1 or error.status not in (400, 404):
                raise
            unsigned = {"invite_room_state": state}
            pdu = {**event.pdu, "unsigned": unsigned}
            invited = await self._client.invite_v1(destination, event.room_id, event.event_id, pdu)
        return invited.event
