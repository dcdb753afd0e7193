"""The timeline of a room in an answer: the newest events of an interval that the reader may and wants to see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from homeserver.rooms.followed import load_followed
from homeserver.storage.stored_event import Status
from homeserver.views.aggregations import without_ignored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import UserId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.events import EventStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.filters import RoomEventFilter
    from homeserver.views.visibility import HistoryVisibility

_MAX_LOOKED_AT = 5_000
_SUMMED_UP = ("m.room.member", "m.room.name", "m.room.canonical_alias")


@dataclass(frozen=True, slots=True)
class Timeline:
    """Events in order of arrival."""

    events: list[StoredEvent]
    limited: bool
    """Older ones of the interval were left out, or are missing here."""
    gap_before: int
    """The position just before the first event, from which `/messages` pages back without gap or repetition."""
    filtered: bool
    """Some events after the first one were left out: not wanted, or not to be seen."""
    begins_after: int
    """The position after which there may be events that the client was not told of before."""
    unwanted: tuple[int, ...]
    """The positions of messages in it that the filter left out."""
    may_change_summary: bool
    """A membership or the name of the room changed, whether that is shown or not."""
    may_change_counts: bool
    """Something that counts as unread, or that has counted, came or went, whether that is shown or not."""

    def after(self, position: int, upto: int) -> Timeline:
        """The part of it after a position; `upto` is where it ends."""
        events = [stored for stored in self.events if stored.stream_id > position]
        return replace(
            self,
            events=events,
            limited=True,
            gap_before=events[0].stream_id - 1 if events else upto,
            may_change_summary=True,
            may_change_counts=True,
        )


class TimelineReader:
    """Reads timelines."""

    def __init__(self, events: EventStore, recent: RecentEvents, visibility: HistoryVisibility) -> None:
        self._events = events
        self._recent = recent
        self._visibility = visibility

    async def read(
        self,
        room_nid: int,
        user_id: UserId,
        *,
        after: int,
        upto: int,
        filter_: RoomEventFilter,
        ignored: frozenset[UserId],
    ) -> Timeline:
        """The newest events with `after < position <= upto` that pass visibility, filter and ignored users.

        As many as the filter's limit, and none from before a gap. Where so many fail that the search is given up,
        the timeline is limited: `/messages` finds the rest.
        """
        limit = filter_.limit
        kept: list[StoredEvent] = []
        seen: list[StoredEvent] = []
        end = upto
        chunk = limit + 1
        limited = False
        while True:
            events = await self._recent.load(room_nid, after=after, upto=end, limit=chunk)
            seen = events + seen
            exhausted = len(events) < chunk
            passing = [stored for stored in events if filter_.allows(stored.event)]
            passing = without_ignored(passing, ignored)
            kept = await self._visibility.visible(user_id, passing) + kept
            if len(kept) > limit:
                # limit 0 is a wish for no events at all.
                kept = kept[len(kept) - limit :]
                limited = True
                break
            if exhausted:
                break
            if len(seen) >= _MAX_LOOKED_AT:
                limited = True
                break
            end = events[0].stream_id - 1
            chunk = min(chunk * 2, 500)
        begins = kept[0].stream_id if limited and kept else after
        # Whatever came over a gap came the long way.
        gap = await self._last_gap([stored for stored in seen if stored.forks and stored.stream_id >= begins])
        if gap is not None:
            kept = [stored for stored in kept if stored.stream_id >= gap]
            limited = True
        gap_before = kept[0].stream_id - 1 if kept else upto
        shown = sum(stored.stream_id > gap_before for stored in seen) if kept else 0
        return Timeline(
            kept,
            limited=limited,
            gap_before=gap_before,
            filtered=shown != len(kept),
            begins_after=after,
            unwanted=tuple(
                stored.stream_id for stored in seen if stored.notifies and not filter_.allows(stored.event)
            ),
            may_change_summary=limited or any(stored.event.type in _SUMMED_UP for stored in seen),
            may_change_counts=limited or any(_may_change_counts(stored) for stored in seen),
        )

    async def _last_gap(self, events: Sequence[StoredEvent]) -> int | None:
        """The position of the last of these events that came over a gap, if one did."""
        for stored in reversed(events):
            if await self._follows_a_gap(stored):
                return stored.stream_id
        return None

    async def begins_in_a_gap(self, timeline: Timeline) -> bool:
        """Whether what the first event follows stands before the log, or is not here yet."""
        return bool(timeline.events) and await self._follows_a_gap(timeline.events[0])

    async def _follows_a_gap(self, stored: StoredEvent) -> bool:
        """Whether what an event follows was not here when it came: it is missing, or was fetched later as history."""
        followed = await load_followed(self._events, stored.event)
        return any(
            one is None
            or one.status is Status.OUTLIER
            or (one.status is Status.TIMELINE and one.stream_id <= 0)
            for one in followed.values()
        )


def _may_change_counts(stored: StoredEvent) -> bool:
    return stored.notifies or stored.highlights != frozenset() or stored.event.type == "m.room.redaction"
