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
    from collections.abc import Iterable

    from homeserver.ids import RoomId, UserId
    from homeserver.rooms.recent_events import RecentEvents
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.notifications import HighlightStore
    from homeserver.storage.receipts import ReceiptRow, ReceiptStore
    from homeserver.storage.stored_event import StoredEvent
    from homeserver.views.ignored import IgnoredUsers
    from homeserver.views.subscribed_threads import SubscribedThreads

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
    ) -> None:
        self._highlights = highlights
        self._receipts = receipts
        self._numbers = numbers
        self._ignored = ignored
        self._subscribed = subscribed
        self._recent = recent
        self._counted: OrderedDict[UserId, dict[RoomId, _Counted]] = OrderedDict()
        self._changes = 0

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

    async def recounted(self, user_id: UserId, *, after: int, upto: int) -> set[RoomId]:
        """The rooms in which other threads count than before, since the user has subscribed, or does so no more."""
        return await self._subscribed.changed_rooms(user_id, after=after, upto=upto)

    # -- what is remembered ----------------------------------------------------------------------------

    def forget(self, user_id: UserId, room_id: RoomId) -> None:
        """The user has read on in a room."""
        self._changes += 1
        self._counted.get(user_id, {}).pop(room_id, None)

    async def _count(self, user_id: UserId, row: MembershipRow, upto: int) -> _Counts:
        ignored = await self._ignored.of(user_id)
        known = self._counted.get(user_id, {}).get(row.room_id)
        if known is not None and known.upto <= upto and known.ignored == ignored:
            came = self._recent.since(row.room_nid, known.upto, upto)
            if came is not None and _carry_on(known.counts, came, user_id, ignored):
                known.upto = upto
                self._counted.move_to_end(user_id)
                return known.counts
        changes = self._changes
        counts = await self._read(user_id, row, upto, ignored)
        if changes == self._changes:
            self._counted.setdefault(user_id, {})[row.room_id] = _Counted(upto, ignored, counts)
            self._counted.move_to_end(user_id)
            if len(self._counted) > _CACHED_USERS:
                self._counted.popitem(last=False)
        return counts

    # -- what the database says ------------------------------------------------------------------------

    async def _read(
        self, user_id: UserId, row: MembershipRow, upto: int, ignored: Iterable[UserId]
    ) -> _Counts:
        reads = _read_up_to(await self._receipts.load_own(user_id, row.room_id))
        after = max(reads.pop("", 0), await self._receipts.joined_at(user_id, row.room_nid))
        own = await self._numbers.user_number(user_id)
        if own is not None:
            for root, position in await self._highlights.load_last_sent(
                row.room_nid, own, after=after, upto=upto
            ):
                reads[_thread(root)] = max(reads.get(_thread(root), 0), position)
        but = [number for one in ignored if (number := await self._numbers.user_number(one)) is not None]
        if own is not None:
            but.append(own)
        positions = {thread: position for thread, position in reads.items() if position > after}
        counts: _Counts = {}
        # What was read of one thread only changes where the count of that thread begins; the usual case has none.
        for start in {after, *positions.values()}:
            for root, number in await self._highlights.count_notifying(
                row.room_nid, after=start, upto=upto, but=but
            ):
                if positions.get(_thread(root), after) == start:
                    counts.setdefault(root, [0, 0])[0] += number
        for root, stream_id, counted in await self._highlights.load_highlights(
            user_id, row.room_nid, after=after, upto=upto, but=but
        ):
            if stream_id > positions.get(_thread(root), after):
                count = counts.setdefault(root, [0, 0])
                count[1] += 1
                count[0] += not counted
        return counts


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


def _read_up_to(receipts: list[ReceiptRow]) -> dict[str, int]:
    """The furthest position that was read, by thread id; the empty one is for unthreaded receipts."""
    reads: dict[str, int] = {}
    for receipt in receipts:
        reads[receipt.thread_id] = max(reads.get(receipt.thread_id, 0), receipt.point.stream_id)
    return reads


def _form(count: list[int]) -> dict[str, int]:
    return {"notification_count": count[0], "highlight_count": count[1]}
