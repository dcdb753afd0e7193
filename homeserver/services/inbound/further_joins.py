"""Users of this server come, by way of another one, into rooms that others here are in (SS "Restricted rooms")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.eventgraph.errors import EventRefused
from homeserver.services.inbound.events import Unplaceable
from homeserver.services.inbound.sources import SourceFailed
from homeserver.storage.stored_event import Status

if TYPE_CHECKING:
    from homeserver.eventgraph.event import Event
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId, ServerName
    from homeserver.rooms.hosted_rooms import HostedRooms
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.services.inbound.gaps import GapFiller
    from homeserver.services.inbound.outliers import Outliers
    from homeserver.services.inbound.queues import Sources


class FurtherJoins:
    """Places their member events like any others: this server knows the room."""

    def __init__(
        self,
        live_rooms: LiveRooms,
        hosted: HostedRooms,
        outliers: Outliers,
        filler: GapFiller,
        sources: Sources,
    ) -> None:
        self._live_rooms = live_rooms
        self._hosted = hosted
        self._outliers = outliers
        self._filler = filler
        self._sources = sources

    async def is_here(self, room_id: RoomId) -> bool:
        """Whether somebody of this server is in a room."""
        room = await self._live_rooms.find(room_id)
        return room is not None and await self._hosted.hosts(room)

    async def take(self, version: RoomVersion, event: Event, server: ServerName) -> None:
        """Take in a join that another server has taken in; what it follows and is not known comes from there.

        Raises `EventRefused` where this server cannot.
        """
        room = await self._live_rooms.get(event.room_id)
        if room.version is not version:
            raise EventRefused("the room is of another version")
        if not await self._outliers.rightly_signed([event]):
            raise EventRefused("the event is not signed by all who must")
        try:
            status = await self._filler.place(room, event, self._sources.of(event.room_id, server))
        except (SourceFailed, Unplaceable) as error:
            raise EventRefused(str(error)) from error
        if status is not Status.TIMELINE:
            raise EventRefused("the room does not allow it")
