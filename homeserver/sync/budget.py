"""Answers for weak links: what matters first, so many bytes at a time; the other rooms follow in the next answers.

What is put off is named by the token that ends the answer (`owed_rooms`): each of these rooms with the position up to
which the client has it. The next answer tells it from there on, so that nothing is lost and nothing comes twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from homeserver.views.room_marks import FAVOURITES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from homeserver.ids import RoomId, UserId
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.missed import MissedStore
    from homeserver.storage.owed_rooms import Owed
    from homeserver.storage.rooms import RoomStore
    from homeserver.views.filters import SyncFilter
    from homeserver.views.room_marks import RoomMarks

_TIMELINE_LIMIT = 5
_MAX_MENTIONS = 1_000


class Budget:
    """How much an answer may hold. Each part of it holds one room at least: there is always something left to do."""

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self.put_off: dict[int, Owed] = {}
        """Rooms by their numbers."""

    @property
    def is_spent(self) -> bool:
        """Whether nothing more goes in."""
        return self._left <= 0

    def spend(self, section: Mapping[str, Any]) -> None:
        """A section goes in."""
        self._left -= len(orjson.dumps(section))


def with_short_timelines(sync_filter: SyncFilter) -> SyncFilter:
    """The filter with a few events of each room only: `limited` and `prev_batch` say where the rest is."""
    timeline = sync_filter.room.timeline
    if timeline.limit <= _TIMELINE_LIMIT:
        return sync_filter
    short = timeline.model_copy(update={"limit": _TIMELINE_LIMIT})
    return sync_filter.model_copy(update={"room": sync_filter.room.model_copy(update={"timeline": short})})


class Importance:
    """Says which rooms matter: direct chats, mentions, favourites, then those in which something happened last."""

    def __init__(self, marks: RoomMarks, missed: MissedStore, rooms: RoomStore) -> None:
        self._marks = marks
        self._missed = missed
        self._rooms = rooms

    async def order(
        self,
        user_id: UserId,
        rooms: Mapping[RoomId, MembershipRow],
        among: Collection[RoomId],
        after: int,
        upto: int,
    ) -> list[RoomId]:
        """Rooms of a user, the most important first."""
        marks = await self._marks.of(user_id)
        favourites = marks.with_any(FAVOURITES)
        nids = [rooms[room_id].room_nid for room_id in among]
        mentions = await self._missed.load_mentions(
            user_id, nids, after=after, upto=upto, but=(), limit=_MAX_MENTIONS
        )
        mentioning = {mention.room_nid for mention in mentions}
        last = {nid: row.last_position for nid, row in (await self._rooms.load(nids)).items()}

        def rank(room_id: RoomId) -> tuple[bool, bool, bool, int]:
            nid = rooms[room_id].room_nid
            return (
                room_id not in marks.direct,
                nid not in mentioning,
                room_id not in favourites,
                -min(last.get(nid, 0), upto),
            )

        return sorted(among, key=rank)
