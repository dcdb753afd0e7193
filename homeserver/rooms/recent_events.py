"""The newest events of the rooms that are in use, in order of arrival: what most syncs are answered from."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homeserver.storage.stored_event import size_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from homeserver.ids import RoomId
    from homeserver.storage.events import EventStore
    from homeserver.storage.stored_event import StoredEvent

_EVENTS_PER_ROOM = 100
_READ_AT_ONCE = 50
_CACHED_SNAPSHOTS = 10_000
_NEWEST = 2**62


class _Tail:
    """The last events of a room: all that arrived after position `since`."""

    __slots__ = ("events", "positions", "room_id", "since")

    def __init__(self, room_id: RoomId, since: int, events: Sequence[StoredEvent] = ()) -> None:
        self.room_id = room_id
        self.since = since
        self.events = list(events)
        self.positions = [stored.stream_id for stored in events]

    @property
    def is_short(self) -> bool:
        """Whether it holds fewer events than are read at once, and not all that there are."""
        return self.since > 0 and len(self.events) < _READ_AT_ONCE

    def holds(self, after: int, upto: int, limit: int) -> bool:
        """Whether the newest `limit` events with `after < position <= upto` are among its events."""
        if after >= self.since:
            return True
        return bisect_right(self.positions, upto) - bisect_right(self.positions, after) >= limit


class _Changes:
    """The rooms that change while something is read of them: what was read may be out of date."""

    __slots__ = ("rooms",)

    def __init__(self) -> None:
        self.rooms: set[RoomId] = set()


class RecentEvents:
    """Timeline events of a room by position, from memory where they are recent."""

    def __init__(self, events: EventStore, cache_bytes: int) -> None:
        self._events = events
        self._cache_bytes = cache_bytes
        self._tails: OrderedDict[int, _Tail] = OrderedDict()
        self._numbers: dict[RoomId, int] = {}
        self._cached_bytes = 0
        self._reading: list[_Changes] = []
        self._snapshots: dict[tuple[int, int], int] = {}

    # -- reading ---------------------------------------------------------------------------------------

    async def load(self, room_nid: int, *, after: int, upto: int, limit: int) -> list[StoredEvent]:
        """The newest `limit` timeline events of a room with `after < stream_id <= upto`, oldest first."""
        if after >= upto:
            return []
        tail = self._tails.get(room_nid)
        if tail is None or (tail.is_short and not tail.holds(after, upto, limit)):
            tail = await self._read(room_nid)
        if tail is not None and tail.holds(after, upto, limit):
            end = bisect_right(tail.positions, upto)
            start = bisect_right(tail.positions, after)
            return tail.events[max(start, end - limit) : end]
        return await self._events.load_arrivals(room_nid, after=after, upto=upto, limit=limit)

    def since(self, room_nid: int, position: int, upto: int) -> list[StoredEvent] | None:
        """All events of a room with `position < stream_id <= upto`, or None where memory does not reach back."""
        tail = self._tails.get(room_nid)
        if tail is None or position < tail.since:
            return None
        return tail.events[bisect_right(tail.positions, position) : bisect_right(tail.positions, upto)]

    async def snapshot_at(self, room_nid: int, position: int) -> int:
        """The state snapshot of a room as it was at a position of the log; 0 before its first event."""
        known = self._known_snapshot(room_nid, position)
        return known if known is not None else await self._events.get_snapshot_at(room_nid, position)

    async def prepare_snapshots(self, places: Collection[tuple[int, int]]) -> None:
        """Have in memory which snapshots those of rooms were, given by (number, position), by one question for all."""
        missing = [place for place in places if self._known_snapshot(*place) is None]
        if missing:
            found = await self._events.load_snapshots_at(missing)
            if len(self._snapshots) > _CACHED_SNAPSHOTS:
                self._snapshots.clear()
            # What comes into a room later has later positions.
            self._snapshots.update({(nid, position): found.get(nid, 0) for nid, position in missing})

    def _known_snapshot(self, room_nid: int, position: int) -> int | None:
        tail = self._tails.get(room_nid)
        if tail is not None:
            index = bisect_right(tail.positions, position)
            if index:
                return tail.events[index - 1].state_then
            if tail.since == 0:
                return 0
        return self._snapshots.get((room_nid, position))

    async def prepare(self, room_nids: Iterable[int], number: int) -> None:
        """Have the newest `number` events of many rooms in memory, by one question for all."""
        missing = [room_nid for room_nid in room_nids if room_nid not in self._tails]
        if not missing or number > _READ_AT_ONCE:
            return
        with self._noting_changes() as changed:
            newest = await self._events.load_newest(missing, number)
        for room_nid, events in newest.items():
            if room_nid not in self._tails:
                self._begin(room_nid, events, number, changed)

    async def _read(self, room_nid: int) -> _Tail | None:
        with self._noting_changes() as changed:
            events = await self._events.load_arrivals(room_nid, after=-1, upto=_NEWEST, limit=_READ_AT_ONCE)
        if events:
            self._begin(room_nid, events, _READ_AT_ONCE, changed)
        return self._tails.get(room_nid)

    def _begin(
        self, room_nid: int, events: Sequence[StoredEvent], number: int, changed: Collection[RoomId]
    ) -> None:
        """Hold what was read of a room, unless something happened in it meanwhile."""
        room_id = events[0].room_id
        if room_id not in changed:
            self._drop(room_nid)
            self._keep(
                room_nid, _Tail(room_id, events[0].stream_id - 1 if len(events) == number else 0, events)
            )

    @contextmanager
    def _noting_changes(self) -> Iterator[set[RoomId]]:
        changes = _Changes()
        self._reading.append(changes)
        try:
            yield changes.rooms
        finally:
            self._reading.remove(changes)

    def _note_change(self, room_id: RoomId) -> None:
        for changes in self._reading:
            changes.rooms.add(room_id)

    # -- following the commits -------------------------------------------------------------------------

    def add(self, stored: StoredEvent) -> None:
        """Take in an event that was just committed. Events of a room must come in order."""
        self._note_change(stored.room_id)
        tail = self._tails.get(stored.room_nid)
        if tail is None:
            is_first = stored.event.type == "m.room.create" and stored.state_before == 0
            self._keep(
                stored.room_nid, _Tail(stored.room_id, 0 if is_first else stored.stream_id - 1, [stored])
            )
            return
        self._tails.move_to_end(stored.room_nid)
        if tail.positions and stored.stream_id <= tail.positions[-1]:
            # It was read from the database before we heard that it is there.
            return
        tail.positions.append(stored.stream_id)
        tail.events.append(stored)
        self._cached_bytes += size_of(stored)
        if len(tail.events) >= 2 * _EVENTS_PER_ROOM:
            tail.since = tail.positions[_EVENTS_PER_ROOM - 1]
            self._cached_bytes -= sum(map(size_of, tail.events[:_EVENTS_PER_ROOM]))
            del tail.positions[:_EVENTS_PER_ROOM]
            del tail.events[:_EVENTS_PER_ROOM]
        self._drop_oldest()

    def replace(self, stored: StoredEvent) -> None:
        """Take in the changed form of an event that may be held: it was redacted."""
        self._note_change(stored.room_id)
        tail = self._tails.get(stored.room_nid)
        if tail is not None:
            index = bisect_right(tail.positions, stored.stream_id) - 1
            if index >= 0 and tail.positions[index] == stored.stream_id:
                self._cached_bytes += size_of(stored) - size_of(tail.events[index])
                tail.events[index] = stored

    def invalidate(self, room_id: RoomId) -> None:
        """Another process wrote into the room: what is held may have a gap."""
        self._note_change(room_id)
        room_nid = self._numbers.get(room_id)
        if room_nid is not None:
            self._drop(room_nid)

    def _drop(self, room_nid: int) -> None:
        dropped = self._tails.pop(room_nid, None)
        if dropped is not None:
            del self._numbers[dropped.room_id]
            self._cached_bytes -= sum(map(size_of, dropped.events))

    def _keep(self, room_nid: int, tail: _Tail) -> None:
        self._tails[room_nid] = tail
        self._numbers[tail.room_id] = room_nid
        self._cached_bytes += sum(map(size_of, tail.events))
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while self._cached_bytes > self._cache_bytes:
            self._drop(next(iter(self._tails)))
