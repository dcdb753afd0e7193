"""When something was last said in a room: `bump_stamp`, by which clients sort (MSC4186 "Room results").

From memory, and carried on by the events that come in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.stored_event import StoredEvent

BUMP_TYPES = frozenset(
    {
        "m.room.create",
        "m.room.message",
        "m.room.encrypted",
        "m.sticker",
        "m.call.invite",
        "m.poll.start",
        "m.beacon_info",
        # What polls and live locations are called in rooms today.
        "org.matrix.msc3381.poll.start",
        "org.matrix.msc3672.beacon_info",
    }
)
_MAX_LOOKED_AT = 2_000
_CACHED_ROOMS = 20_000


@dataclass(slots=True)
class _Known:
    upto: int
    stamp: int


class BumpStamps:
    """Answers with a position of the log."""

    def __init__(self, recent: RecentEvents) -> None:
        self._recent = recent
        self._rooms: OrderedDict[int, _Known] = OrderedDict()

    async def of(self, room_nid: int, upto: int) -> int:
        """The position of the newest event of a room, up to a position, that says something.

        Where there was none for very long, the place up to which was looked.
        """
        known = self._rooms.get(room_nid)
        if known is not None and known.upto <= upto:
            came = self._recent.since(room_nid, known.upto, upto)
            if came is not None:
                known.stamp = _newest(came) or known.stamp
                known.upto = upto
                self._rooms.move_to_end(room_nid)
                return known.stamp
        stamp = await self._find(room_nid, upto)
        self._rooms[room_nid] = _Known(upto, stamp)
        if len(self._rooms) > _CACHED_ROOMS:
            self._rooms.popitem(last=False)
        return stamp

    async def _find(self, room_nid: int, upto: int) -> int:
        end, looked_at, chunk = upto, 0, 50
        while looked_at < _MAX_LOOKED_AT:
            events = await self._recent.load(room_nid, after=0, upto=end, limit=chunk)
            stamp = _newest(events)
            if stamp:
                return stamp
            if len(events) < chunk:
                return events[0].stream_id if events else end
            end, looked_at, chunk = events[0].stream_id - 1, looked_at + len(events), 500
        return end


def _newest(events: Iterable[StoredEvent]) -> int:
    return max((stored.stream_id for stored in events if stored.event.type in BUMP_TYPES), default=0)
