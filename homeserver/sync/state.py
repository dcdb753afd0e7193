"""The state of a room in an answer: up to the start of the timeline, or to its end (MSC4222)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.state import GONE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from homeserver.eventgraph.event import StateKey
    from homeserver.ids import UserId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.events import EventStore
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.state import StateStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.sync.interval import Interval
    from homeserver.sync.timeline import Timeline
    from homeserver.views.filters import RoomEventFilter

_FEW_ENTRIES = 50
_Numbers = dict[int, int]
"""Entries of the state: number of the key -> number of the event."""


class StateReader:
    """Reads what a client needs so that it ends with the true state."""

    def __init__(
        self, recent: RecentEvents, events: EventStore, state: StateStore, numbers: NumberStore
    ) -> None:
        self._recent = recent
        self._events = events
        self._state = state
        self._numbers = numbers

    async def read(
        self,
        user_id: UserId,
        room_nid: int,
        timeline: Timeline,
        interval: Interval,
        wanted: RoomEventFilter,
        known_members: frozenset[int],
        *,
        after: int,
        whole: bool,
    ) -> list[StoredEvent]:
        """The entries of the state that changed after a position, in order; or all of them, as the `whole` state.

        `after` is 0 where the client has nothing of the room, `known_members` are member events that it holds.
        """
        numbers = await self._numbers_of(room_nid, timeline, interval, 0 if whole else after)
        if wanted.lazy_load_members and (whole or timeline.events):
            changed = await self._numbers_of(room_nid, timeline, interval, after) if whole and after else {}
            numbers = await self._only_needed_members(
                user_id,
                room_nid,
                numbers,
                timeline,
                interval,
                known_members if not whole else frozenset(),
                whole=whole,
            )
            numbers.update(changed)
        if not numbers:
            return []
        events = await self._events.load_numbered(n for n in numbers.values() if n != GONE)
        return sorted(
            (stored for stored in events.values() if wanted.allows(stored.event)),
            key=lambda stored: stored.stream_id,
        )

    async def prepare(
        self, places: Mapping[int, int], keys: Mapping[int, Iterable[StateKey]], *, whole: bool
    ) -> None:
        """Have the state of rooms in memory, by their numbers, as it was at some position of each.

        And of the events in it those of some keys, or all of them of the `whole` state of rooms that are not large.
        """
        snapshots = {nid: await self._recent.snapshot_at(nid, position) for nid, position in places.items()}
        snapshots = {nid: snapshot for nid, snapshot in snapshots.items() if snapshot}
        await self._state.load_chains(snapshots.values())
        if whole:
            await self._state.prepare_keys(snapshots.values())
        key_nids = await self._numbers.load_key_numbers({key for some in keys.values() for key in some})
        event_nids: set[int] = set()
        for room_nid, snapshot in snapshots.items():
            numbers = await self._state.load_numbers(snapshot) if whole else {}
            if not whole or len(numbers) > _FEW_ENTRIES:
                wanted = [key_nids[key] for key in keys.get(room_nid, ()) if key in key_nids]
                numbers = await self._state.get_numbers(snapshot, wanted)
            event_nids.update(numbers.values())
        await self._events.load_numbered(event_nids)

    async def entries(self, room_nid: int, position: int, keys: Iterable[StateKey]) -> list[StoredEvent]:
        """Some entries of the state of a room as it was at a position; absent ones are left out."""
        snapshot = await self._recent.snapshot_at(room_nid, position)
        if snapshot == 0:
            return []
        key_nids = await self._numbers.load_key_numbers(keys)
        numbers = await self._state.get_numbers(snapshot, key_nids.values())
        return list((await self._events.load_numbered(numbers.values())).values())

    async def overtaken_upto(self, room_nid: int, timeline: Timeline, interval: Interval) -> int:
        """The position of the last event of a timeline that is the state no more, by an event that is not in it; or 0.

        Up to there the timeline would undo what `state` tells: that is applied before it.
        """
        if interval.use_state_after or not (timeline.filtered and timeline.events):
            return 0
        if any(stored.forks for stored in timeline.events):
            return 0
        last = await self._recent.snapshot_at(room_nid, interval.upto)
        later = await self._difference(await self._before(room_nid, timeline), last)
        shown = {stored.event_nid for stored in timeline.events}
        hidden = [key_nid for key_nid, event_nid in later.items() if event_nid not in shown]
        keys = set((await self._state.load_keys(hidden)).values()) if hidden else set()
        states = [stored for stored in timeline.events if stored.event.state_key is not None]
        return max((stored.stream_id for stored in states if stored.event.key in keys), default=0)

    async def members(self, room_nid: int, position: int, user_ids: Iterable[str]) -> list[StoredEvent]:
        """The member events of some users as they were at a position."""
        snapshot = await self._recent.snapshot_at(room_nid, position)
        numbers = await self._member_numbers(snapshot, user_ids)
        events = await self._events.load_numbered(numbers.values())
        return sorted(events.values(), key=lambda stored: stored.stream_id)

    async def numbered(self, event_nids: Iterable[int]) -> list[StoredEvent]:
        """Events by their numbers."""
        return list((await self._events.load_numbered(event_nids)).values())

    async def _numbers_of(
        self, room_nid: int, timeline: Timeline, interval: Interval, after: int
    ) -> _Numbers:
        last = await self._recent.snapshot_at(room_nid, interval.upto)
        forked = any(stored.forks for stored in timeline.events)
        end = last
        if timeline.events and not interval.use_state_after:
            end = await self._before(room_nid, timeline)
        start = await self._recent.snapshot_at(room_nid, after) if after else 0
        numbers = await self._difference(start, end)
        if (timeline.filtered or forked) and end != last:
            # What changed during the timeline, and is not in it, can only be told here. (What is in it and lost to
            # another event in the resolution of a fork cannot be told at all but in `state_after`.)
            shown = {stored.event_nid for stored in timeline.events}
            told = {s.event.key for s in timeline.events if s.event.state_key is not None}
            later = await self._difference(end, last)
            keys = await self._state.load_keys(later) if told else {}
            for key_nid, event_nid in later.items():
                if event_nid not in shown and keys.get(key_nid) not in told:
                    numbers[key_nid] = event_nid
        return numbers

    async def _before(self, room_nid: int, timeline: Timeline) -> int:
        """The state of the room before a timeline."""
        first = timeline.events[0]
        if not first.forks:
            return first.state_before
        return await self._recent.snapshot_at(room_nid, first.stream_id - 1)

    async def _difference(self, start: int, end: int) -> _Numbers:
        if end in (0, start):
            return {}
        return await self._state.load_difference(start, end)

    async def _only_needed_members(
        self,
        user_id: UserId,
        room_nid: int,
        numbers: _Numbers,
        timeline: Timeline,
        interval: Interval,
        known_members: frozenset[int],
        *,
        whole: bool,
    ) -> _Numbers:
        """CS "Lazy-loading room members": those who sent something, and who changed in the interval.

        Of a room that is new to the client also the user's own, and whose change the timeline shows.
        """
        needed: set[str] = {stored.event.sender for stored in timeline.events}
        if whole:
            needed.add(user_id)
            if interval.use_state_after:
                needed |= {
                    stored.event.state_key or ""
                    for stored in timeline.events
                    if stored.event.type == "m.room.member"
                }
            numbers = await self._without_members_but(numbers, needed)
        at = (
            await self._recent.snapshot_at(room_nid, interval.upto)
            if interval.use_state_after
            else await self._before(room_nid, timeline)
            if timeline.events
            else 0
        )
        members = await self._member_numbers(at, needed)
        missing = {key: number for key, number in members.items() if number not in known_members}
        return {**missing, **numbers}

    async def _without_members_but(self, numbers: _Numbers, user_ids: Collection[str]) -> _Numbers:
        keys = await self._state.load_keys(numbers)
        return {
            key_nid: event_nid
            for key_nid, event_nid in numbers.items()
            if keys[key_nid][0] != "m.room.member" or keys[key_nid][1] in user_ids
        }

    async def _member_numbers(self, snapshot_nid: int, user_ids: Iterable[str]) -> _Numbers:
        numbers: _Numbers = {}
        if snapshot_nid == 0:
            return numbers
        for user_id in sorted(user_ids):
            key_nid = await self._numbers.key_number(("m.room.member", user_id))
            event_nid = await self._state.get_number(snapshot_nid, key_nid) if key_nid is not None else None
            if key_nid is not None and event_nid is not None:
                numbers[key_nid] = event_nid
        return numbers
