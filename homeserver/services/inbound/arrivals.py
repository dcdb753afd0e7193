"""A room that this server comes into, or comes back to: its state as another server tells it (SS "Joining Rooms")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.eventgraph.errors import EventRefused
from homeserver.rooms.live_rooms import CREATE
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.inbound.outliers import at_hand_of, cited_by, refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.services.inbound.events import InboundEvents
    from homeserver.services.inbound.outliers import Outliers
    from homeserver.services.jobs import Progress
    from homeserver.services.memberships_elsewhere import MembershipsElsewhere
    from homeserver.storage.database import Database
    from homeserver.storage.events import EventStore
    from homeserver.storage.rooms import RoomStore
    from homeserver.storage.stored_event import NumberedEvent


class RoomArrivals:
    """Writes down the rooms that this server comes into."""

    def __init__(
        self,
        database: Database,
        rooms: RoomStore,
        live_rooms: LiveRooms,
        events: EventStore,
        outliers: Outliers,
        inbound: InboundEvents,
        elsewhere: MembershipsElsewhere,
    ) -> None:
        self._database = database
        self._rooms = rooms
        self._live_rooms = live_rooms
        self._events = events
        self._outliers = outliers
        self._inbound = inbound
        self._elsewhere = elsewhere

    async def arrive(
        self,
        version: RoomVersion,
        event: Event,
        state: Mapping[EventId, Event],
        auth_chain: Mapping[EventId, Event],
        progress: Progress | None = None,
    ) -> LiveRoom:
        """Begin a room with an event of a user of ours and the state before it, as the resident server tells it.

        What of that state is wrongly signed, or not allowed by what it cites, is left out of it. Raises
        `EventRefused` where what is left does not allow the event, or says otherwise what room this is.
        """
        room = await self._known(event.room_id, version)
        taken = await self._outliers.take(room, {**auth_chain, **state}, progress)
        entries: dict[StateKey, NumberedEvent] = {}
        for event_id in state:
            one = taken.get(event_id)
            if one is None or one.event.state_key is None or one.event.rejected:
                continue
            if one.event.key in entries:
                raise EventRefused(f"the state of the room has two events for {one.event.key}")
            entries[one.event.key] = one
        await self._check_create(room, entries.get(CREATE))
        await self._check_event(room, event)
        try:
            await self._inbound.arrive(room, event, entries)
        except Unplaceable as error:
            raise EventRefused(str(error)) from error
        await self._elsewhere.arrived(room)
        return room

    async def _check_create(self, room: LiveRoom, create: NumberedEvent | None) -> None:
        """Refuse a state of another room, whatever it calls itself."""
        if create is None:
            raise EventRefused("the state of the room has no create event")
        if create.event.content.get("room_version", "1") != room.version.identifier:
            raise EventRefused("the room is of another version")
        before = (await self._live_rooms.state_entries(room, [CREATE])).get(CREATE)
        if before is not None and before.event_id != create.event.event_id:
            raise EventRefused("the room has another create event than it had")

    async def _check_event(self, room: LiveRoom, event: Event) -> None:
        """Refuse to come in with an event that no other server would take: its template was another server's."""
        cited = cited_by([event])
        found = await self._events.load([*cited, *event.prev_event_ids])
        if any(one.room_nid != room.room_nid for one in found.values()):
            raise EventRefused("the event follows or cites one of another room")
        at_hand = at_hand_of(found)
        if cited - at_hand.keys():
            raise EventRefused(f"the event cites {min(cited - at_hand.keys())}, which is not known")
        reason = refusal(event, at_hand)
        if reason is not None:
            raise EventRefused(reason)
        if not await self._outliers.rightly_signed([event]):
            raise EventRefused("the event is not signed by all who must")

    async def _known(self, room_id: RoomId, version: RoomVersion) -> LiveRoom:
        """The room, without anything in it where it is new here."""

        known = await self._live_rooms.find(room_id)
        if known is not None and known.version is not version:
            # An invite may have named a wrong version: nobody checks what it says of a room elsewhere.
            await self._elsewhere.forget(room_id)
            known = await self._live_rooms.find(room_id)
        if known is None:
            await self._database.write(lambda t: self._rooms.insert_empty(t, room_id, version))
        room = await self._live_rooms.get(room_id)
        if room.version is not version:
            raise EventRefused("the room is of another version")
        return room
