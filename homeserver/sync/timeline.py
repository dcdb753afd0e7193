"""The timeline of a room in an answer: the newest events of an interval that the reader may and wants to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.views.aggregations import without_ignored

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.events import StoredEvent
    from homeserver.views.filters import RoomEventFilter
    from homeserver.views.visibility import HistoryVisibility

_MAX_LOOKED_AT = 5_000


@dataclass(frozen=True, slots=True)
class Timeline:
    """Events in order of arrival; `limited` where older ones of the interval were left out."""

    events: list[StoredEvent]
    limited: bool
    gap_before: int
    """The position just before the first event, from which `/messages` pages back without gap or repetition."""


class TimelineReader:
    """Reads timelines."""

    def __init__(self, recent: RecentEvents, visibility: HistoryVisibility) -> None:
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
        limit: int,
        ignored: frozenset[UserId],
    ) -> Timeline:
        """The newest `limit` events with `after < position <= upto` that pass visibility, filter and ignored users.

        Where so many fail that the search is given up, the timeline is limited: `/messages` finds the rest.
        """
        kept: list[StoredEvent] = []
        end = upto
        looked_at = 0
        chunk = limit + 1
        while True:
            events = await self._recent.load(room_nid, after=after, upto=end, limit=chunk)
            looked_at += len(events)
            exhausted = len(events) < chunk
            passing = [stored for stored in events if filter_.allows(stored.event)]
            passing = without_ignored(passing, ignored)
            passing = await self._visibility.visible(user_id, passing)
            kept = passing + kept
            if len(kept) > limit:
                # limit 0 is a wish for no events at all.
                kept = kept[len(kept) - limit :]
                return Timeline(kept, limited=True, gap_before=kept[0].stream_id - 1 if kept else upto)
            if exhausted:
                return Timeline(kept, limited=False, gap_before=kept[0].stream_id - 1 if kept else upto)
            end = events[0].stream_id - 1
            if looked_at >= _MAX_LOOKED_AT:
                return Timeline(kept, limited=True, gap_before=kept[0].stream_id - 1 if kept else upto)
            chunk = min(chunk * 2, 500)
