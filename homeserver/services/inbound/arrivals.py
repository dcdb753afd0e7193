"""A room that this server comes into, or comes back to: its state as another server tells it (SS "Joining Rooms")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.eventgraph.errors import EventRefused
from homeserver.services.inbound.events import Unplaceable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.live_rooms import LiveRoom, LiveRooms
    from homeserver.services.inbound.events import InboundEvents
    from homeserver.services.inbound.outliers import Outliers
    from homeserver.services.memberships_elsewhere import MembershipsElsewhere
    from homeserver.storage.database import Database
    from homeserver.storage.events import EventStore
    from homeserver.storage.rooms import RoomStore


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
    ) -> LiveRoom:
        """Begin a room with an event of a user of ours and the state before it, as the resident server tells it.

        What of that state is wrongly signed, or not allowed by what it cites, is left out of it. Raises
        `EventRefused` where what is left does not allow the event, or says otherwise what room this is.
        """
        room = await self._known(event.room_id, version)
        await self._outliers.take(room, {**auth_chain, **state})
        stored = await self._events.load(state)
        entries = {
            one.event.key: one.event_nid
            for one in stored.values()
            if one.event.state_key is not None and not one.event.rejected and one.room_nid == room.room_nid
        }
        create = entries.get(("m.room.create", ""))
        if create is None:
            raise EventRefused("the state of the room has no create event")
        (created,) = (await self._events.load_numbered([create])).values()
        if created.event.content.get("room_version", "1") != version.identifier:
            raise EventRefused("the room is of another version")
        try:
            await self._inbound.arrive(room, event, entries)
        except Unplaceable as error:
            raise EventRefused(str(error)) from error
        await self._elsewhere.arrived(room)
        return room

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
