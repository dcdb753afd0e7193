"""The events of rooms for servers that are in them (SS "Retrieving events", "Backfilling and retrieving missing events")."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from homeserver.errors import NotFound
from homeserver.services.inbound.outliers import create_event_id
from homeserver.storage.stored_event import RoomPoint, Status, Stretch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence

    from homeserver.ids import EventId, RoomId, ServerName
    from homeserver.rooms.auth_chains import AuthChains
    from homeserver.rooms.live_rooms import LiveRoom
    from homeserver.services.resident.access import ResidentAccess
    from homeserver.storage.events import EventStore
    from homeserver.storage.raw_events import RawEventStore
    from homeserver.storage.state import StateStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.server_visibility import ServerVisibility

MAX_EVENTS = 100
"""So many events one answer holds at most, where it is not a state."""
_MAX_PASSED_BY = 500
_AT_ONCE = 100
_MAX_LOOKED_AT = 1_000
_EVERYTHING = 2**62


class RoomGraph:
    """Answers from the graph of events. Whatever is asked of a room, the asking server must be in it."""

    def __init__(
        self,
        access: ResidentAccess,
        events: EventStore,
        raw: RawEventStore,
        state: StateStore,
        chains: AuthChains,
        visibility: ServerVisibility,
    ) -> None:
        self._access = access
        self._events = events
        self._raw = raw
        self._state = state
        self._chains = chains
        self._visibility = visibility

    # -- single events and states ----------------------------------------------------------------------

    async def event(self, origin: ServerName, event_id: EventId) -> bytes:
        """The JSON of one event; redacted where the server may not see it."""
        stored = await self._events.get(event_id)
        if stored is None:
            raise _unknown_event()
        await self._access.shared_room(origin, stored.room_id)
        if not stored.has_state:
            # What is cited in a room, and no more is known of it, is told to all who are there.
            if stored.status is not Status.OUTLIER or stored.event.state_key is None:
                raise _unknown_event()
            return stored.event.json
        (shown,) = await self._visibility.shown(origin, [stored])
        return shown

    async def state_before(
        self, origin: ServerName, room_id: RoomId, event_id: EventId
    ) -> tuple[Sequence[int], Sequence[int]]:
        """The state before an event and the auth chains of its events, by numbers."""
        room = await self._access.shared_room(origin, room_id)
        stored = await self._events.get(event_id)
        if stored is None or stored.room_nid != room.room_nid or not stored.has_state:
            raise _unknown_event()
        return await self.state_and_chain(room, stored.state_before, [])

    async def state_and_chain(
        self, room: LiveRoom, snapshot_nid: int, also: Collection[int]
    ) -> tuple[Sequence[int], Sequence[int]]:
        """A state, and the auth chains of its events and of some others, by numbers."""
        numbers: Collection[int] = ()
        if snapshot_nid:
            numbers = (await self._state.load_numbers(snapshot_nid)).values()
        return sorted(numbers), sorted(await self.auth_chain(room, [*numbers, *also]))

    async def event_auth(self, origin: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[int]:
        """The auth chain of an event, by numbers."""
        room = await self._access.shared_room(origin, room_id)
        stored = await self._events.get(event_id)
        if stored is None or stored.room_nid != room.room_nid:
            raise _unknown_event()
        return sorted(await self.auth_chain(room, [stored.event_nid]))

    async def auth_chain(self, room: LiveRoom, event_nids: Collection[int]) -> set[int]:
        """What events cite, and what that cites, and so on; and the create event, which nobody cites from version 12 on."""
        try:
            chain = await self._chains.of(event_nids)
        except LookupError as error:
            raise NotFound("This server does not know the whole auth chain") from error
        if room.version.room_id_is_create_hash:
            create = await self._events.load_event_numbers([create_event_id(room.room_id)])
            chain |= set(create.values()).difference(event_nids)
        return chain

    async def ids(self, event_nids: Sequence[int]) -> list[EventId]:
        """The ids of events."""
        found: list[EventId] = []
        for start in range(0, len(event_nids), _MAX_LOOKED_AT):
            found += await self._raw.load_ids(event_nids[start : start + _MAX_LOOKED_AT])
        return found

    async def elements(self, event_nids: Sequence[int]) -> AsyncIterator[bytes]:
        """The JSON of events as the elements of a list, some at a time: a big state is never held whole."""
        separator = b""
        for start in range(0, len(event_nids), _AT_ONCE):
            events = await self._raw.load_json(event_nids[start : start + _AT_ONCE])
            if events:
                yield separator + b",".join(events)
                separator = b","

    # -- stretches of history --------------------------------------------------------------------------

    async def backfill(
        self, origin: ServerName, room_id: RoomId, event_ids: Sequence[EventId], limit: int
    ) -> list[bytes]:
        """Events and those before them, newest first; what is not known is passed over."""
        room = await self._access.shared_room(origin, room_id)
        found = await self._walk(room, event_ids, min(limit, MAX_EVENTS))
        return await self._visibility.shown(origin, found)

    async def missing_events(
        self,
        origin: ServerName,
        room_id: RoomId,
        *,
        earliest: Collection[EventId],
        latest: Sequence[EventId],
        limit: int,
        min_depth: int,
    ) -> list[bytes]:
        """The events before `latest` back to `earliest`, without either, oldest first.

        "This is done by doing a breadth-first walk of the `prev_events` for the `latest_events`": others take an event
        only if they get all that it follows.
        """
        room = await self._access.shared_room(origin, room_id)
        known = await self._events.load(latest)
        first = [
            event_id
            for stored in known.values()
            if stored.room_nid == room.room_nid
            for event_id in stored.event.prev_event_ids
        ]
        found = await self._walk(
            room,
            first,
            min(limit, MAX_EVENTS),
            without={*earliest, *latest},
            min_depth=min_depth,
            breadth_first=True,
        )
        found.sort(key=lambda stored: (stored.event.depth, stored.event_nid))
        return await self._visibility.shown(origin, found)

    async def nearest(
        self, origin: ServerName, room_id: RoomId, ts: int, *, backwards: bool
    ) -> tuple[EventId, int]:
        """The event closest to a time that the server may see, and its time; `NotFound` where there is none."""
        room = await self._access.shared_room(origin, room_id)
        looked_at, at_once = 0, 1
        while looked_at < _MAX_LOOKED_AT:
            events = await self._events.load_nearest(
                room.room_nid, ts=ts, backwards=backwards, upto=_EVERYTHING, skip=looked_at, limit=at_once
            )
            hidden = await self._visibility.hidden(origin, events)
            for stored in events:
                if stored.event_nid not in hidden:
                    return stored.event.event_id, stored.event.origin_server_ts
            if len(events) < at_once:
                break
            looked_at += len(events)
            at_once = min(10 * at_once, MAX_EVENTS)
        raise NotFound("There is no event at or beyond that time")

    async def _walk(
        self,
        room: LiveRoom,
        event_ids: Iterable[EventId],
        limit: int,
        *,
        without: Collection[EventId] = (),
        min_depth: int = 0,
        breadth_first: bool = False,
    ) -> list[StoredEvent]:
        """Events and what they follow, as far as it is known; not beyond those of `without`.

        Deepest first, or `breadth_first`: those that are fewer steps away.
        """
        seen = set(without)
        queue: list[tuple[int, int, int, StoredEvent]] = []
        near: dict[EventId, StoredEvent] = {}

        async def add(wanted: Iterable[EventId], steps: int) -> None:
            new = [one for one in dict.fromkeys(wanted) if one not in seen]
            seen.update(new)
            far = await self._events.load(one for one in new if one not in near)
            for event_id in new:
                stored = near.get(event_id) or far.get(event_id)
                if stored is not None and stored.room_nid == room.room_nid and stored.has_state:
                    heappush(queue, (steps, -stored.event.depth, -stored.event_nid, stored))

        await add(event_ids, 0)
        if queue and limit > 1:
            # Mostly these are the ones: read together, they need not be asked for one by one.
            start = RoomPoint(-queue[0][1], _EVERYTHING)
            stretch = Stretch(_EVERYTHING, start=start)
            read = await self._events.load_timeline(room.room_nid, stretch, backwards=True, limit=limit)
            near.update({stored.event.event_id: stored for stored in read})
        found: list[StoredEvent] = []
        passed_by = 0
        while queue and len(found) < limit and passed_by < _MAX_PASSED_BY:
            steps, *_, stored = heappop(queue)
            if stored.event.depth < min_depth:
                continue
            if stored.status is Status.REJECTED:
                passed_by += 1
            else:
                found.append(stored)
            await add(stored.event.prev_event_ids, steps + 1 if breadth_first else 0)
        return found


def _unknown_event() -> NotFound:
    return NotFound("This server does not have that event, or not the state at it")
