"""Unread counts (CS "Receiving notifications"): what notifies since the user has read, without a row per member.

A count is asked of the database once, and then carried on by the events that come in, from memory. What a user has
read up to is, for each thread, the furthest of their receipts and of the messages that they sent there themselves
(CS "Marking notifications as read").
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from homeserver.views.push_rules import EVERYBODY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.notifications import HighlightStore
    from homeserver.storage.receipts import ReceiptRow, ReceiptStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.subscribed_threads import SubscribedThreads
    from homeserver.views.visibility import HistoryVisibility

MAIN = "main"
_CACHED_USERS = 10_000
_Counts = dict[str | None, list[int]]
"""[notifications, highlights] by thread root; None is the main timeline."""


@dataclass(slots=True)
class _Counted:
    """What was counted in a room up to a position."""

    upto: int
    ignored: frozenset[UserId]
    counts: _Counts


class _Reading:
    """Counts of a user that are being read, and where the user reads on meanwhile."""

    def __init__(self, user_id: UserId) -> None:
        self.user_id = user_id
        self.out_of_date: set[RoomId] = set()


class UnreadCounts:
    """Counts the notifying and the highlighting events of rooms for users."""

    def __init__(
        self,
        highlights: HighlightStore,
        receipts: ReceiptStore,
        numbers: NumberStore,
        ignored: IgnoredUsers,
        subscribed: SubscribedThreads,
        recent: RecentEvents,
        visibility: HistoryVisibility,
    ) -> None:
        self._highlights = highlights
        self._receipts = receipts
        self._numbers = numbers
        self._ignored = ignored
        self._subscribed = subscribed
        self._recent = recent
        self._visibility = visibility
        self._counted: OrderedDict[UserId, dict[RoomId, _Counted]] = OrderedDict()
        self._readings: list[_Reading] = []

    async def of(self, user_id: UserId, row: MembershipRow, *, upto: int, by_thread: bool) -> dict[str, Any]:
        """The fields `unread_notifications` and, `by_thread`, `unread_thread_notifications` of a room.

        By thread, the first counts the main timeline only.
        """
        counts = await self._count(user_id, row, upto)
        threads = await self._subscribed.of(user_id, row.room_id)
        if threads is not None:
            counts = {
                root: count if root is None or root in threads else _mentions_only(count)
                for root, count in counts.items()
            }
        main = counts.get(None, [0, 0])
        if not by_thread:
            totals = [sum(pair) for pair in zip([0, 0], *counts.values(), strict=True)]
            return {"unread_notifications": _form(totals)}
        return {
            "unread_notifications": _form(main),
            "unread_thread_notifications": {
                root: _form(count) for root, count in counts.items() if root is not None and any(count)
            },
        }

    async def recounted(
        self, user_id: UserId, rooms: Iterable[RoomId], *, after: int, upto: int
    ) -> set[RoomId]:
        """Those of a user's rooms in which other threads count than before: they have subscribed, or do so no more."""
        return await self._subscribed.changed_rooms(user_id, rooms, after=after, upto=upto)

    # -- what is remembered ----------------------------------------------------------------------------

    def forget(self, user_id: UserId, room_id: RoomId) -> None:
        """The user has read on in a room."""
        for reading in self._readings:
            if reading.user_id == user_id:
                reading.out_of_date.add(room_id)
        self._counted.get(user_id, {}).pop(room_id, None)

    async def prepare(self, user_id: UserId, rows: Iterable[MembershipRow], *, upto: int) -> None:
        """Have counted in several rooms, by a few questions for all of them."""
        ignored = await self._ignored.of(user_id)
        missing = [row for row in rows if self._known(user_id, row, upto, ignored) is None]
        if missing:
            await self._read(user_id, missing, upto, ignored)

    async def _count(self, user_id: UserId, row: MembershipRow, upto: int) -> _Counts:
        ignored = await self._ignored.of(user_id)
        counts = self._known(user_id, row, upto, ignored)
        return (
            counts if counts is not None else (await self._read(user_id, [row], upto, ignored))[row.room_id]
        )

    def _known(
        self, user_id: UserId, row: MembershipRow, upto: int, ignored: frozenset[UserId]
    ) -> _Counts | None:
        """What was counted before, carried on; None where it has to be asked for."""
        known = self._counted.get(user_id, {}).get(row.room_id)
        if known is None or known.upto > upto or known.ignored != ignored:
            return None
        if known.upto < upto:
            came = self._recent.since(row.room_nid, known.upto, upto)
            if came is None or not _carry_on(known.counts, came, user_id, ignored):
                return None
            known.upto = upto
        self._counted.move_to_end(user_id)
        return known.counts

    async def _read(
        self, user_id: UserId, rows: Sequence[MembershipRow], upto: int, ignored: frozenset[UserId]
    ) -> dict[RoomId, _Counts]:
        reading = _Reading(user_id)
        self._readings.append(reading)
        try:
            counts = await self._load(user_id, rows, upto, ignored)
        finally:
            self._readings.remove(reading)
        known = self._counted.setdefault(user_id, {})
        for room_id in counts.keys() - reading.out_of_date:
            known[room_id] = _Counted(upto, ignored, counts[room_id])
        self._counted.move_to_end(user_id)
        if len(self._counted) > _CACHED_USERS:
            self._counted.popitem(last=False)
        return counts

    # -- what the database says ------------------------------------------------------------------------

    async def _load(
        self, user_id: UserId, rows: Sequence[MembershipRow], upto: int, ignored: Iterable[UserId]
    ) -> dict[RoomId, _Counts]:
        counts: dict[RoomId, _Counts] = {row.room_id: {} for row in rows}
        # Where nothing came since, nothing has to be counted.
        places = {
            place.room_nid: place
            for place in await self._load_places(user_id, rows)
            if self._recent.since(place.room_nid, place.after, upto) != []
        }
        if not places:
            return counts
        starts = [(place.room_nid, place.after) for place in places.values()]
        own = await self._numbers.user_number(user_id)
        if own is not None:
            for room_nid, root, position in await self._highlights.load_last_sent(starts, own, upto=upto):
                places[room_nid].read(_thread(root), position)
        but = [number for one in ignored if (number := await self._numbers.user_number(one)) is not None]
        if own is not None:
            but.append(own)
        # What was read of one thread only changes where the count of that thread begins; the usual case has none.
        begins = [
            (place.room_nid, begin)
            for place in places.values()
            for begin in {place.after, *place.threads.values()}
        ]
        for room_nid, begin, root, number in await self._highlights.count_notifying(
            begins, upto=upto, but=but
        ):
            place = places[room_nid]
            if place.begin(_thread(root)) == begin:
                counts[place.room_id].setdefault(root, [0, 0])[0] += number
        for room_nid, root, position, counted in await self._highlights.load_highlights(
            user_id, starts, upto=upto, but=but
        ):
            place = places[room_nid]
            if position > place.begin(_thread(root)):
                count = counts[place.room_id].setdefault(root, [0, 0])
                count[1] += 1
                count[0] += not counted
        return counts

    async def _load_places(self, user_id: UserId, rows: Sequence[MembershipRow]) -> list[_Place]:
        receipts: dict[RoomId, list[ReceiptRow]] = {}
        for receipt in await self._receipts.load_own(user_id, [row.room_id for row in rows]):
            receipts.setdefault(receipt.room_id, []).append(receipt)
        if len(rows) > 1:
            await self._visibility.load_histories(rows)
        return [
            _Place(
                row.room_nid,
                row.room_id,
                # Nothing that came before they did is unread.
                (await self._visibility.history(row)).joined_at(),
                receipts.get(row.room_id, ()),
            )
            for row in rows
        ]


class _Place:
    """Up to where a user has read a room, and threads in it further than that."""

    def __init__(
        self, room_nid: int, room_id: RoomId, joined_at: int, receipts: Iterable[ReceiptRow]
    ) -> None:
        self.room_nid = room_nid
        self.room_id = room_id
        furthest: dict[str, int] = {}
        for receipt in receipts:
            furthest[receipt.thread_id] = max(furthest.get(receipt.thread_id, 0), receipt.point.stream_id)
        # The empty id is for receipts without a thread.
        self.after = max(furthest.pop("", 0), joined_at)
        self.threads: dict[str, int] = {}
        for thread, position in furthest.items():
            self.read(thread, position)

    def read(self, thread: str, position: int) -> None:
        """A thread was read up to a position."""
        if position > self.begin(thread):
            self.threads[thread] = position

    def begin(self, thread: str) -> int:
        """After which position the count of a thread begins."""
        return self.threads.get(thread, self.after)


def _carry_on(
    counts: _Counts, came: Iterable[StoredEvent], user_id: UserId, ignored: frozenset[UserId]
) -> bool:
    """Count the events that came in; False where that takes more than the events themselves."""
    for stored in came:
        event = stored.event
        if (
            stored.highlights is None
            or event.type == "m.room.redaction"
            or (event.type == "m.room.member" and event.state_key == user_id)
        ):
            return False
    for stored in came:
        event = stored.event
        if event.sender == user_id:
            if stored.notifies:
                counts.pop(stored.thread_root, None)
        elif event.sender not in ignored:
            highlights = stored.highlights or frozenset()
            is_highlight = user_id in highlights or EVERYBODY in highlights
            if stored.notifies or is_highlight:
                count = counts.setdefault(stored.thread_root, [0, 0])
                count[0] += 1
                count[1] += is_highlight
    return True


def _mentions_only(count: list[int]) -> list[int]:
    """What notifies in a thread that the user has not subscribed to (MSC4306)."""
    return [count[1], count[1]]


def _thread(root: str | None) -> str:
    return MAIN if root is None else root


def _form(count: list[int]) -> dict[str, int]:
    return {"notification_count": count[0], "highlight_count": count[1]}
