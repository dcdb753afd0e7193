"""Rooms of other servers, made in memory by `tests.eventgraph`, that a server is told of event by event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from homeserver.ids import ServerName
from homeserver.rooms.state_resolver import StatePoint
from homeserver.services.inbound.arrivals import RoomArrivals
from homeserver.services.inbound.gaps import GapFiller
from homeserver.services.inbound.outliers import Outliers
from homeserver.services.inbound.sources import SourceFailed, StateIds
from homeserver.storage.interning import NumberStore
from homeserver.storage.outliers import OutlierStore
from homeserver.storage.rooms import RoomStore
from homeserver.storage.state import StateStore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from homeserver.eventgraph.event import Event
    from homeserver.ids import EventId, RoomId
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.storage.stored_event import Status
    from tests.eventgraph.rooms import Room, State
    from tests.server import Server


class EverybodySigns:
    """Takes every signature for right: rooms in memory are signed with one key."""

    async def rightly_signed(self, events: Collection[Event], checked: object = None) -> set[EventId]:
        return {event.event_id for event in events}


class ForeignRoom:
    """A room as a server under test has been told of it."""

    def __init__(self, server: Server, room: Room) -> None:
        self.room = room
        self.application = server.application
        application = self.application
        database = application.database
        self.rooms = RoomStore(database)
        self.state = StateStore(database)
        outliers = Outliers(
            database,
            application.stores.events,
            OutlierStore(application.stores.events, NumberStore(database)),
            EverybodySigns(),
        )
        self.outliers = outliers
        self.arrivals = RoomArrivals(
            database,
            self.rooms,
            application.rooms.live,
            application.stores.events,
            outliers,
            application.inbound.events,
            application.inbound.elsewhere,
        )

        self.filler = GapFiller(
            ServerName(server.settings.server_name),
            application.clock,
            self.rooms,
            application.stores.events,
            application.stores.gaps,
            application.stores.memberships,
            application.inbound.events._resolver,
            outliers,
            application.inbound.events,
        )

    async def arrive(self, event: Event) -> LiveRoom:
        """The server comes into the room with this event."""
        before = self.room.state_before([self.room.events[event_id] for event_id in event.prev_event_ids])
        state = {event_id: self.room.events[event_id] for event_id in before.values()}
        return await self.arrivals.arrive(self.room.version, event, state, auth_chain(self.room, state))

    async def receive(self, event: Event, source: Resident) -> Status:
        """The server is told of an event, and asks for what is missing."""
        room = await self.application.rooms.live.get(self.room.room_id)
        return await self.filler.place(room, event, source)

    async def take(self, event: Event) -> Status:
        """The server is told of an event, and of the states after those before it that have no place there."""
        room = await self.application.rooms.live.get(self.room.room_id)
        stored = await self.application.stores.events.load(event.prev_event_ids)
        given = {
            event_id: await self._point(self.room.state_after[event_id])
            for event_id in event.prev_event_ids
            if event_id not in stored or not stored[event_id].has_state
        }
        return await self.application.inbound.events.place(room, event, given)

    async def _point(self, state: State) -> StatePoint:
        numbers = await self.application.stores.events.load_event_numbers(state.values())
        return StatePoint(0, {key: numbers[event_id] for key, event_id in state.items()})

    async def state_after(self, event_id: EventId) -> State:
        stored = await self.application.stores.events.get(event_id)
        assert stored is not None
        return await self.state.load_event_ids(stored.state_after)

    async def current_state(self) -> State:
        """The current state as the tables have it."""
        row = await self.rooms.get(self.room.room_id)
        assert row is not None
        numbers = await self.state.load_current(row.room_nid)
        assert numbers == await self.state.load_numbers(row.state_snapshot)
        return await self.state.load_event_ids(row.state_snapshot)

    async def extremities(self) -> Sequence[EventId]:
        row = await self.rooms.get(self.room.room_id)
        assert row is not None
        return [extremity.event_id for extremity in row.forward_extremities]


class Resident:
    """A server that is in a room and answers for it."""

    def __init__(self, room: Room, *, missing_limit: int = 10, backfills: bool = True) -> None:
        self.room = room
        self.missing_limit = missing_limit
        self.backfills = backfills
        self.asked: list[str] = []

    async def missing_events(
        self, room_id: RoomId, *, earliest: Sequence[EventId], latest: Sequence[EventId], min_depth: int
    ) -> list[Any]:
        self.asked.append("missing_events")
        found = self._before(latest, set(earliest), self.missing_limit)
        return [event.pdu for event in found if event.depth >= min_depth and event.event_id not in latest]

    async def backfill(self, room_id: RoomId, event_ids: Sequence[EventId], limit: int) -> list[Any]:
        self.asked.append("backfill")
        if not self.backfills:
            raise SourceFailed
        return [event.pdu for event in self._before(event_ids, set(), limit)]

    async def event(self, room_id: RoomId, event_id: EventId) -> Any:
        self.asked.append("event")
        return self.room.events[event_id].pdu

    async def state_ids(self, room_id: RoomId, event_id: EventId) -> StateIds:
        self.asked.append("state_ids")
        state = self._state_before(event_id)
        return StateIds(list(state.values()), list(self._chain(state.values())))

    async def state(self, room_id: RoomId, event_id: EventId) -> tuple[list[Any], list[Any]]:
        self.asked.append("state")
        state = self._state_before(event_id).values()
        return [self.room.events[one].pdu for one in state], [one.pdu for one in self._chain(state).values()]

    async def event_auth(self, room_id: RoomId, event_id: EventId) -> list[Any]:
        self.asked.append("event_auth")
        return [event.pdu for event in self._chain([event_id]).values()]

    def _state_before(self, event_id: EventId) -> State:
        previous = self.room.events[event_id].prev_event_ids
        return self.room.state_before([self.room.events[one] for one in previous])

    def _before(self, event_ids: Sequence[EventId], known: set[EventId], limit: int) -> list[Event]:
        found: dict[EventId, Event] = {}
        ahead = list(event_ids)
        while ahead and len(found) < limit:
            event = self.room.events[ahead.pop(0)]
            found[event.event_id] = event
            ahead += [one for one in event.prev_event_ids if one not in known and one not in found]
        return list(found.values())

    def _chain(self, event_ids: Iterable[EventId]) -> dict[EventId, Event]:
        return auth_chain(self.room, event_ids)


def auth_chain(room: Room, event_ids: Iterable[EventId]) -> dict[EventId, Event]:
    """All that events cite, and what that cites, and so on."""
    chain: dict[EventId, Event] = {}
    ahead = list(event_ids)
    while ahead:
        event = room.events[ahead.pop()]
        for event_id in event.auth_event_ids:
            if event_id not in chain:
                chain[event_id] = room.events[event_id]
                ahead.append(event_id)
    return chain
