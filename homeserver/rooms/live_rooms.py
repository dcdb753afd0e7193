"""Rooms as they are held in memory: the head that the next event is built on, and the current state."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from homeserver.errors import NotFound
from homeserver.eventgraph.power_levels import PowerLevels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.eventgraph.event import Event, StateKey
    from homeserver.eventgraph.room_versions import RoomVersion
    from homeserver.ids import RoomId
    from homeserver.storage.events import EventStore
    from homeserver.storage.rooms import Extremity, RoomRow, RoomStore

_CACHED_ROOMS = 5_000
_MANY_CHANGES = 1_000
CREATE = ("m.room.create", "")
POWER_LEVELS = ("m.room.power_levels", "")


@dataclass(slots=True, eq=False)
class SnapshotReference:
    """A state snapshot that may not be stored yet; its number is set by the write that stores it."""

    snapshot_nid: int | None


@dataclass(slots=True, eq=False)
class DerivedSnapshot(SnapshotReference):
    """One that is stored by the write that needs it: `changes` on another, by event number or `GONE`."""

    base: SnapshotReference
    changes: Mapping[StateKey, int]


@dataclass(frozen=True, slots=True)
class Head:
    """What the next event of a room is built on."""

    head_version: int
    extremities: tuple[Extremity, ...]
    depth: int
    snapshot: SnapshotReference


@dataclass(slots=True, eq=False)
class LiveRoom:
    """A room in memory.

    `head` may be ahead of the database: it counts events that are on their way to it. `pending` holds the state
    that these events set, `state` what is committed. A generation ends when one of these events could not be
    written: what was built on it is dropped.
    """

    room_nid: int
    room_id: RoomId
    version: RoomVersion
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    head: Head | None = None
    generation: int = 0
    state: dict[StateKey, Event | None] = field(default_factory=dict)
    # The head that `state` was read at: another process may have moved on before we hear of it.
    state_version: int | None = None
    pending: dict[StateKey, Event] = field(default_factory=dict)
    # Whether a user of this server is in the room; None where that has to be looked up.
    is_hosted: bool | None = None
    # Done when all that was handed to the database so far is there, or has failed.
    last_write: asyncio.Future[Any] | None = None
    _levels: tuple[Event, Event | None, PowerLevels] | None = None

    def invalidate(self) -> None:
        """Forget the head and the state: somebody else wrote into the room, or a write failed."""
        self.generation += 1
        self.head = None
        self.pending.clear()
        self.state = {}
        self.is_hosted = None

    def take_over(self, changes: Mapping[StateKey, Event | None]) -> None:
        """Entries of the state have changed; of very many only those are kept that somebody has asked for."""
        if len(changes) <= _MANY_CHANGES:
            self.state.update(changes)
            return
        # Anew, so that who reads an entry just now does not take what was there before for what is there now.
        asked_for = self.state
        self.state = {key: changes.get(key, event) for key, event in asked_for.items()}

    def power_levels(self, create: Event, event: Event | None) -> PowerLevels:
        """The power levels that these state events set up, parsed once."""
        if self._levels is None or self._levels[0] is not create or self._levels[1] is not event:
            self._levels = (create, event, PowerLevels(self.version, create, event))
        return self._levels[2]


class LiveRooms:
    """The rooms that are in use; the others are in the database."""

    def __init__(self, rooms: RoomStore, events: EventStore) -> None:
        self._rooms = rooms
        self._events = events
        self._live: OrderedDict[RoomId, LiveRoom] = OrderedDict()

    def peek(self, room_id: RoomId) -> LiveRoom | None:
        """The room, if it is in memory."""
        return self._live.get(room_id)

    async def find(self, room_id: RoomId) -> LiveRoom | None:
        """The room, or None if this server does not know it."""
        room = self._live.get(room_id)
        if room is not None:
            self._live.move_to_end(room_id)
            return room
        row = await self._rooms.get(room_id)
        if row is None:
            return None
        return self.add(LiveRoom(row.room_nid, row.room_id, row.version))

    async def get(self, room_id: RoomId) -> LiveRoom:
        """The room; raises `NotFound` where this server does not know it."""
        room = await self.find(room_id)
        if room is None:
            message = "Unknown room"
            raise NotFound(message)
        return room

    def add(self, room: LiveRoom) -> LiveRoom:
        """Hold a room in memory; the one that is held already wins."""
        room = self._live.setdefault(room.room_id, room)
        while len(self._live) > _CACHED_ROOMS:
            room_id, oldest = next(iter(self._live.items()))
            if oldest.lock.locked() or oldest.pending or oldest is room:
                self._live.move_to_end(room_id)
                break
            del self._live[room_id]
        return room

    async def load_rows(self, room_ids: Iterable[RoomId]) -> list[RoomRow]:
        """Those of these rooms that this server knows, as they are stored."""
        return await self._rooms.load_by_id(room_ids)

    def drop(self, room_id: RoomId) -> None:
        """The room is no longer stored."""
        self._live.pop(room_id, None)

    def invalidate(self, room_id: RoomId) -> None:
        """Another process wrote into the room."""
        room = self._live.get(room_id)
        if room is not None:
            room.invalidate()

    async def load_head(self, room: LiveRoom) -> Head:
        """The head of a room, under its lock."""
        if room.head is None:
            row = await self._rooms.get(room.room_id)
            if row is None:
                message = "Unknown room"
                raise NotFound(message)
            if row.head_version != room.state_version:
                room.state = {}
                room.state_version = row.head_version
            room.head = Head(
                row.head_version,
                row.forward_extremities,
                row.depth,
                SnapshotReference(row.state_snapshot),
            )
        return room.head

    async def state_to_build_on(self, room: LiveRoom, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
        """Entries of the state after the head, events on their way included. Under the room's lock."""
        wanted = list(keys)
        committed = await self.state_entries(room, [key for key in wanted if key not in room.pending])
        for key in wanted:
            pending = room.pending.get(key)
            if pending is not None:
                committed[key] = pending
        return committed

    async def state_entries(self, room: LiveRoom, keys: Iterable[StateKey]) -> dict[StateKey, Event]:
        """Entries of the committed current state; an absent one is left out."""
        found: dict[StateKey, Event] = {}
        missing: list[StateKey] = []
        state = room.state
        for key in keys:
            try:
                event = state[key]
            except KeyError:
                missing.append(key)
            else:
                if event is not None:
                    found[key] = event
        while missing:
            rows = await self._events.load_current_state(room.room_nid, missing)
            if state is not room.state:
                # The room was invalidated meanwhile.
                state = room.state
                continue
            loaded = {stored.event.key: stored.event for stored in rows}
            for key in missing:
                # What a commit has set in the meantime is newer than what was read.
                event = state.setdefault(key, loaded.get(key))
                if event is not None:
                    found[key] = event
            break
        return found
