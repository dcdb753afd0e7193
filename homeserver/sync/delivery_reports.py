"""What senders are to hear once devices of others have got their messages: of each room the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import RoomId, UserId, server_name_of
from homeserver.storage.announcements import Topic
from homeserver.storage.delivery_news import DELIVERED, KEPT_MS, DeliveryNews

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from homeserver.ids import ServerName
    from homeserver.notifier.notifier import Notifier
    from homeserver.rooms.memberships import Memberships
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.room_stretch import RoomStretch
    from homeserver.storage.rooms import RoomStore
    from homeserver.views.delivery_sharing import DeliverySharing

_MAX_EVENTS = 1_000
"""Of a room, for one device at a time; whoever wrote before that hears of it by asking."""


class DeliveryReports:
    """Finds out who is told what."""

    def __init__(
        self,
        server_name: ServerName,
        notifier: Notifier,
        rooms: RoomStore,
        memberships: Memberships,
        recent: RecentEvents,
        sharing: DeliverySharing,
    ) -> None:
        self._server_name = server_name
        self._notifier = notifier
        self._rooms = rooms
        self._memberships = memberships
        self._recent = recent
        self._sharing = sharing

    async def rooms_with_news(self, user_id: UserId, after: int, upto: int) -> set[int]:
        """The numbers of those rooms of a user that events came into between two positions."""
        rooms = await self._memberships.of_user(user_id)
        announced = self._notifier.changes_since(after, upto)
        if announced is None:
            changed = await self._rooms.changed_since(rooms, after)
        else:
            changed = [RoomId(key) for topic, key in announced if topic is Topic.ROOM_EVENTS and key in rooms]
        return {rooms[room_id].room_nid for room_id in changed}

    async def of(
        self, user_id: UserId, came: Iterable[RoomStretch], left_out: Iterable[RoomStretch], ts: int
    ) -> list[DeliveryNews]:
        """Who hears that a device of a user has got stretches of rooms at a time, but for what was left out of them.

        Nobody where the user does not share that, in rooms that they are not in, or that are too large.
        """
        if not await self._sharing.of(user_id):
            return []
        by_room, gaps = _by_room(came), _by_room(left_out)
        memberships = await self._memberships.of_user(user_id)
        news: list[DeliveryNews] = []
        for room_nid, room in (await self._sharing.rooms_among(by_room)).items():
            row = memberships.get(room.room_id)
            if row is not None and row.membership == "join":
                news += await self._of_room(row, by_room[room_nid], gaps.get(room_nid, ()), ts)
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
            is_long_ago = stored.event.origin_server_ts < ts - KEPT_MS
            if server_name_of(sender) == self._server_name and position > row.stream_id and not is_long_ago:
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
