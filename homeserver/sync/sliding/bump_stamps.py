"""When something was last said in a room: `bump_stamp`, by which clients sort (MSC4186 "Room results").

From memory, and carried on by the events that come in.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.storage.rooms import SAYING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.rooms import RoomStore
    from homeserver.storage.stored_event import StoredEvent

_MAX_LOOKED_AT = 2_000
_CACHED_ROOMS = 20_000


@dataclass(slots=True)
class _Known:
    upto: int
    stamp: int


class BumpStamps:
    """Answers with a position of the log."""

    def __init__(self, recent: RecentEvents, rooms: RoomStore) -> None:
        self._recent = recent
        self._store = rooms
        self._rooms: OrderedDict[int, _Known] = OrderedDict()

    async def of(self, room_nid: int, upto: int) -> int:
        """The position of the newest event of a room, up to a position, that says something.

        Where there was none for very long, the place up to which was looked.
        """
        known = self._known(room_nid, upto)
        if known is None:
            await self.prepare([room_nid], upto)
            known = self._known(room_nid, upto)
        if known is None:
            known = await self._find(room_nid, upto)
            self._keep(room_nid, upto, known)
        return known

    async def prepare(self, room_nids: Iterable[int], upto: int) -> None:
        """Have the stamps of several rooms in memory, as far as the rooms themselves know them."""
        missing = [room_nid for room_nid in room_nids if self._known(room_nid, upto) is None]
        if missing:
            for room_nid, stamp in (await self._store.load_said(missing)).items():
                # Another process may have written what is not heard of here.
                if stamp <= upto:
                    self._keep(room_nid, upto, stamp)

    def _known(self, room_nid: int, upto: int) -> int | None:
        known = self._rooms.get(room_nid)
        if known is None or known.upto > upto:
            return None
        if known.upto < upto:
            came = self._recent.since(room_nid, known.upto, upto)
            if came is None:
                return None
            known.stamp = _newest(came) or known.stamp
            known.upto = upto
        self._rooms.move_to_end(room_nid)
        return known.stamp

    def _keep(self, room_nid: int, upto: int, stamp: int) -> None:
        self._rooms[room_nid] = _Known(upto, stamp)
        self._rooms.move_to_end(room_nid)
        if len(self._rooms) > _CACHED_ROOMS:
            self._rooms.popitem(last=False)

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
    return max((stored.stream_id for stored in events if stored.event.type in SAYING), default=0)
