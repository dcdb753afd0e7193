"""The newest events of the rooms that are in use, in order of arrival: what most syncs are answered from."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeserver.ids import RoomId
    from homeserver.storage.events import EventStore, StoredEvent

_EVENTS_PER_ROOM = 100
_CACHED_EVENTS = 50_000


class _Tail:
    """The last events of a room: all that arrived after position `since`."""

    __slots__ = ("events", "positions", "room_id", "since")

    def __init__(self, room_id: RoomId, since: int) -> None:
        self.room_id = room_id
        self.since = since
        self.positions: list[int] = []
        self.events: list[StoredEvent] = []


class RecentEvents:
    """Timeline events of a room by position, from memory where they are recent."""

    def __init__(self, events: EventStore) -> None:
        self._events = events
        self._tails: OrderedDict[int, _Tail] = OrderedDict()
        self._numbers: dict[RoomId, int] = {}
        self._cached = 0

    async def load(self, room_nid: int, *, after: int, upto: int, limit: int) -> list[StoredEvent]:
        """The newest `limit` timeline events of a room with `after < stream_id <= upto`, oldest first."""
        tail = self._tails.get(room_nid)
        if tail is not None:
            end = bisect_right(tail.positions, upto)
            start = bisect_right(tail.positions, after)
            if after >= tail.since or end - start >= limit:
                return tail.events[max(start, end - limit) : end]
        return await self._events.load_arrivals(room_nid, after=after, upto=upto, limit=limit)

    def add(self, stored: StoredEvent) -> None:
        """Take in an event that was just committed. Events of a room must come in order."""
        tail = self._tails.get(stored.room_nid)
        if tail is None:
            tail = self._tails[stored.room_nid] = _Tail(stored.room_id, stored.stream_id - 1)
            self._numbers[stored.room_id] = stored.room_nid
        else:
            self._tails.move_to_end(stored.room_nid)
        tail.positions.append(stored.stream_id)
        tail.events.append(stored)
        self._cached += 1
        if len(tail.events) >= 2 * _EVENTS_PER_ROOM:
            tail.since = tail.positions[_EVENTS_PER_ROOM - 1]
            del tail.positions[:_EVENTS_PER_ROOM]
            del tail.events[:_EVENTS_PER_ROOM]
            self._cached -= _EVENTS_PER_ROOM
        while self._cached > _CACHED_EVENTS:
            _, dropped = self._tails.popitem(last=False)
            del self._numbers[dropped.room_id]
            self._cached -= len(dropped.events)

    def replace(self, stored: StoredEvent) -> None:
        """Take in the changed form of an event that may be held: it was redacted."""
        tail = self._tails.get(stored.room_nid)
        if tail is not None:
            index = bisect_right(tail.positions, stored.stream_id) - 1
            if index >= 0 and tail.positions[index] == stored.stream_id:
                tail.events[index] = stored

    def invalidate(self, room_id: RoomId) -> None:
        """Another process wrote into the room: what is held may have a gap."""
        room_nid = self._numbers.pop(room_id, None)
        if room_nid is not None:
            self._cached -= len(self._tails.pop(room_nid).events)
