"""The read side of rooms: current state, memberships, events; from memory where a room is warm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.errors import NotFound
from homeserver.rooms.live_rooms import CREATE, POWER_LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.power_levels import PowerLevels
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import EventId, RoomId, ServerName, UserId
    from homeserver.rooms.live_rooms import LiveRooms
    from homeserver.rooms.memberships import Memberships
    from homeserver.rooms.room_servers import RoomServers
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.memberships import MembershipRow, MembershipStore
    from homeserver.storage.state import StateStore
    from homeserver.storage.stored_event import StoredEvent, Stretch


@dataclass(frozen=True, slots=True)
class RoomOutline:
    """What is told of a room to those who are not in it."""

    room_nid: int
    room_id: RoomId
    version: RoomVersion
    joined_members: int
    state: Mapping[StateKey, Event]


class RoomReader:
    """Answers about rooms. Nothing that is not yet committed is ever told."""

    def __init__(
        self,
        live_rooms: LiveRooms,
        events: EventStore,
        state: StateStore,
        numbers: NumberStore,
        memberships: Memberships,
        membership_store: MembershipStore,
        servers: RoomServers,
    ) -> None:
        self._live_rooms = live_rooms
        self._events = events
        self._state = state
        self._numbers = numbers
        self._memberships = memberships
        self._membership_store = membership_store
        self._servers = servers

    async def exists(self, room_id: RoomId) -> bool:
        """Whether this server knows the room."""
        return await self._live_rooms.find(room_id) is not None

    async def version(self, room_id: RoomId) -> RoomVersion:
        """The version of a room; `NotFound` for an unknown one."""
        return (await self._live_rooms.get(room_id)).version

    async def room_nid(self, room_id: RoomId) -> int:
        """The number of a room; `NotFound` for an unknown one."""
        return (await self._live_rooms.get(room_id)).room_nid

    async def state_event(self, room_id: RoomId, event_type: str, state_key: str = "") -> Event | None:
        """One event of the current state."""
        key = (event_type, state_key)
        return (await self.state_entries(room_id, [key])).get(key)

    async def state_entries(self, room_id: RoomId, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
        """Some entries of the current state; absent ones are left out."""
        return await self._live_rooms.state_entries(await self._live_rooms.get(room_id), keys)

    async def outlines(
        self, room_ids: Iterable[RoomId], keys: Iterable[StateKey]
    ) -> dict[RoomId, RoomOutline]:
        """Those of these rooms that this server knows, each with some entries of its state; two questions for all."""
        rows = await self._live_rooms.load_rows(room_ids)
        states = await self.state_entries_of_rooms([row.room_nid for row in rows], keys)
        return {
            row.room_id: RoomOutline(
                row.room_nid, row.room_id, row.version, row.joined_members, states[row.room_nid]
            )
            for row in rows
        }

    async def state_entries_of_rooms(
        self, room_nids: Iterable[int], keys: Iterable[StateKey]
    ) -> dict[int, dict[StateKey, Event]]:
        """Some entries of the current state of many rooms, by the numbers of the rooms."""
        states: dict[int, dict[StateKey, Event]] = {room_nid: {} for room_nid in room_nids}
        for stored in await self._events.load_current_state_of_rooms(states, keys):
            states[stored.room_nid][stored.event.key] = stored.event
        return states

    async def state(self, room_id: RoomId) -> dict[StateKey, Event]:
        """The whole current state."""
        return {stored.event.key: stored.event for stored in await self.stored_state(room_id)}

    async def state_of_type(self, room_id: RoomId, event_type: str) -> dict[str, Event]:
        """The events of one type in the current state, by state key."""
        return {one.event.key[1]: one.event for one in await self.stored_state_of_type(room_id, event_type)}

    async def stored_state_of_type(self, room_id: RoomId, event_type: str) -> list[StoredEvent]:
        """The events of one type in the current state, as stored events."""
        room = await self._live_rooms.get(room_id)
        return await self._events.load_current_state_of_type(room.room_nid, event_type)

    async def stored_state(
        self, room_id: RoomId, keys: Iterable[StateKey] | None = None
    ) -> list[StoredEvent]:
        """The current state, or some entries of it, as stored events."""
        room = await self._live_rooms.get(room_id)
        wanted = None if keys is None else set(keys)
        stored = await self._events.load_current_state(room.room_nid, wanted)
        return stored if wanted is None else [one for one in stored if one.event.key in wanted]

    async def state_at(self, event_id: EventId) -> dict[StateKey, EventId]:
        """The state after an event; `NotFound` for an unknown one."""
        stored = await self.event(event_id)
        if stored is None:
            message = "Unknown event"
            raise NotFound(message)
        return await self._state.load_event_ids(stored.state_after)

    async def snapshot_at(self, room_id: RoomId, position: int) -> int:
        """The state snapshot of a room as it was at a position of the log; 0 before its first event."""
        room = await self._live_rooms.get(room_id)
        return await self._events.get_snapshot_at(room.room_nid, position)

    async def stored_entries_at(self, snapshot_nid: int, keys: Iterable[StateKey]) -> list[StoredEvent]:
        """Some entries of a snapshot; absent ones are left out."""
        if snapshot_nid == 0:
            return []
        key_nids = await self._numbers.load_key_numbers(keys)
        numbers = await self._state.get_numbers(snapshot_nid, key_nids.values())
        return list((await self._events.load_numbered(numbers.values())).values())

    async def members_at(self, snapshot_nid: int, user_ids: Iterable[str]) -> list[StoredEvent]:
        """The member events of some users in a snapshot."""
        return await self.stored_entries_at(
            snapshot_nid, [("m.room.member", user_id) for user_id in user_ids]
        )

    async def last_event(self, room_id: RoomId, position: int) -> StoredEvent | None:
        """The event that came last into a room, up to a position of the log."""
        room = await self._live_rooms.get(room_id)
        found = await self._events.load_arrivals(room.room_nid, after=-(2**62), upto=position, limit=1)
        return found[0] if found else None

    async def stored_state_at(self, snapshot_nid: int) -> list[StoredEvent]:
        """The state of a snapshot as stored events."""
        if snapshot_nid == 0:
            return []
        numbers = await self._state.load_numbers(snapshot_nid)
        return list((await self._events.load_numbered(numbers.values())).values())

    async def stored_state_of_type_at(
        self, snapshot_nid: int, event_type: str, *, others: bool = False
    ) -> list[StoredEvent]:
        """The entries of one type in a snapshot, or of all `others`, as stored events."""
        if snapshot_nid == 0:
            return []
        numbers = await self._state.load_numbers_of_type(snapshot_nid, event_type, others=others)
        return list((await self._events.load_numbered(numbers)).values())

    async def power_levels(self, room_id: RoomId) -> PowerLevels:
        """The power levels now in force; `NotFound` for a room of which nothing is known but invites."""
        room = await self._live_rooms.get(room_id)
        state = await self._live_rooms.state_entries(room, (CREATE, POWER_LEVELS))
        if CREATE not in state:
            message = "Unknown room"
            raise NotFound(message)
        return room.power_levels(state[CREATE], state.get(POWER_LEVELS))

    async def membership(self, room_id: RoomId, user_id: UserId) -> MembershipRow | None:
        """The membership of a user in a room, if they ever had one."""
        return (await self._memberships.of_user(user_id)).get(room_id)

    async def rooms_of(self, user_id: UserId) -> dict[RoomId, MembershipRow]:
        """Every room that a user has a membership in. The answer is not to be changed."""
        return await self._memberships.of_user(user_id)

    async def members(self, room_id: RoomId, membership: str = "join") -> list[UserId]:
        """The users with a membership, oldest change first."""
        room = await self._live_rooms.get(room_id)
        return [row.user_id for row in await self._membership_store.load_in_room(room.room_nid, [membership])]

    async def servers(self, room_id: RoomId) -> set[ServerName]:
        """The servers whose users are in a room, this one included where it is."""
        return await self._servers.all_in(await self._live_rooms.get(room_id))

    async def share_a_room(self, user_id: UserId, other: UserId) -> bool:
        """Whether two users are joined to a common room."""
        return await self._membership_store.share_a_room(user_id, other)

    async def event(self, event_id: EventId) -> StoredEvent | None:
        """An event by its id."""
        return await self._events.get(event_id)

    async def events(self, event_ids: Iterable[EventId]) -> dict[EventId, StoredEvent]:
        """Those of these events that this server has."""
        return await self._events.load(event_ids)

    async def timeline(
        self,
        room_id: RoomId,
        stretch: Stretch,
        *,
        backwards: bool,
        limit: int,
    ) -> list[StoredEvent]:
        """The first `limit` events of a stretch of a room, in walking order."""
        room = await self._live_rooms.get(room_id)
        return await self._events.load_timeline(room.room_nid, stretch, backwards=backwards, limit=limit)

    async def nearest(
        self, room_id: RoomId, *, ts: int, backwards: bool, upto: int, skip: int, limit: int
    ) -> list[StoredEvent]:
        """The events of a room that arrived up to a position, in one direction from a time, closest first."""
        room = await self._live_rooms.get(room_id)
        return await self._events.load_nearest(
            room.room_nid, ts=ts, backwards=backwards, upto=upto, skip=skip, limit=limit
        )
