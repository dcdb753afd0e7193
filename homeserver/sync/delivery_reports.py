"""What senders are to hear once devices of others have got their messages: of each room the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import UserId, server_name_of
from homeserver.storage.delivery_news import DELIVERED, DeliveryNews

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.ids import ServerName
    from homeserver.rooms.memberships import Memberships
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.room_stretch import RoomStretch
    from homeserver.views.delivery_sharing import DeliverySharing

_MAX_EVENTS = 1_000
"""Of a room, for one device at a time; whoever wrote before that hears of it by asking."""


class DeliveryReports:
    """Finds out who is told what."""

    def __init__(
        self,
        server_name: ServerName,
        memberships: Memberships,
        recent: RecentEvents,
        sharing: DeliverySharing,
    ) -> None:
        self._server_name = server_name
        self._memberships = memberships
        self._recent = recent
        self._sharing = sharing

    async def joined(self, user_id: UserId) -> dict[int, MembershipRow]:
        """The rooms that a user is in, by their numbers."""
        rooms = await self._memberships.of_user(user_id)
        return {row.room_nid: row for row in rooms.values() if row.membership == "join"}

    async def of(
        self, user_id: UserId, came: Iterable[RoomStretch], left_out: Iterable[RoomStretch], ts: int
    ) -> list[DeliveryNews]:
        """Who hears that a device of a user has got stretches of rooms at a time, but for what was left out of them.

        Nobody where the user does not share that, in rooms that they are not in, or that are too large.
        """
        if not await self._sharing.of(user_id):
            return []
        joined = await self.joined(user_id)
        by_room = _by_room(one for one in came if one.room_nid in joined)
        gaps = _by_room(left_out)
        news: list[DeliveryNews] = []
        for room_nid in await self._sharing.rooms_among(by_room) if by_room else ():
            news += await self._of_room(joined[room_nid], by_room[room_nid], gaps.get(room_nid, ()), ts)
        return news

    async def _of_room(
        self, row: MembershipRow, came: Sequence[RoomStretch], gaps: Sequence[RoomStretch], ts: int
    ) -> list[DeliveryNews]:
        told = set()
        news = []
        events = await self._recent.load(
            row.room_nid,
            after=min(one.after for one in came),
            upto=max(one.upto for one in came),
            limit=_MAX_EVENTS,
        )
        for stored in reversed(events):
            sender, position = UserId(stored.event.sender), stored.stream_id
            if not stored.notifies or sender in told or sender == row.user_id:
                continue
            if not any(one.holds(position) for one in came) or any(one.holds(position) for one in gaps):
                continue
            told.add(sender)
            if server_name_of(sender) == self._server_name and position > row.stream_id:
                event_id = stored.event.event_id
                news.append(DeliveryNews(sender, row.room_id, row.user_id, DELIVERED, event_id, ts, position))
        return news


def newest(news: Iterable[DeliveryNews]) -> list[DeliveryNews]:
    """Of several about the same, the one about the newest event."""
    kept: dict[tuple[object, ...], DeliveryNews] = {}
    for one in sorted(news, key=lambda one: one.event_position):
        kept[one.sender, one.room_id, one.user_id] = one
    return list(kept.values())


def _by_room(stretches: Iterable[RoomStretch]) -> Mapping[int, list[RoomStretch]]:
    by_room: dict[int, list[RoomStretch]] = {}
    for one in stretches:
        by_room.setdefault(one.room_nid, []).append(one)
    return by_room
