"""Unread counts (CS "Receiving notifications"): what notifies since the user's receipts, without a row per member."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homeserver.ids import UserId
    from homeserver.storage.interning import NumberStore
    from homeserver.storage.memberships import MembershipRow
    from homeserver.storage.notifications import HighlightStore
    from homeserver.storage.receipts import ReceiptRow, ReceiptStore
    from homeserver.views.ignored import IgnoredUsers

MAIN = "main"
_Counts = dict[str | None, list[int]]


class UnreadCounts:
    """Counts the notifying and the highlighting events of a room for a user."""

    def __init__(
        self, highlights: HighlightStore, receipts: ReceiptStore, numbers: NumberStore, ignored: IgnoredUsers
    ) -> None:
        self._highlights = highlights
        self._receipts = receipts
        self._numbers = numbers
        self._ignored = ignored

    async def of(self, user_id: UserId, row: MembershipRow, *, upto: int, by_thread: bool) -> dict[str, Any]:
        """The fields `unread_notifications` and, `by_thread`, `unread_thread_notifications` of a room.

        By thread, the first counts the main timeline only.
        """
        counts = await self._count(user_id, row, upto)
        main = counts.pop(None, [0, 0])
        if not by_thread:
            totals = [sum(pair) for pair in zip(main, *counts.values(), strict=True)]
            return {"unread_notifications": _form(totals)}
        return {
            "unread_notifications": _form(main),
            "unread_thread_notifications": {
                root: _form(count) for root, count in counts.items() if root is not None and any(count)
            },
        }

    async def _count(self, user_id: UserId, row: MembershipRow, upto: int) -> _Counts:
        """[notifications, highlights] by thread root; None is the main timeline."""
        reads = _read_up_to(await self._receipts.load_own(user_id, row.room_id))
        after = max(reads.get("", 0), await self._receipts.joined_at(user_id, row.room_nid))
        but = await self._not_counted(user_id)
        counts: _Counts = {}
        positions = {root: position for root, position in reads.items() if root and position > after}
        # A threaded receipt changes where the count of that thread begins; the usual case has none.
        for root, number in await self._highlights.count_notifying(
            row.room_nid, after=after, upto=upto, but=but
        ):
            if _thread(root) not in positions:
                counts.setdefault(root, [0, 0])[0] += number
        for thread, position in positions.items():
            for root, number in await self._highlights.count_notifying(
                row.room_nid, after=position, upto=upto, but=but
            ):
                if _thread(root) == thread:
                    counts.setdefault(root, [0, 0])[0] += number
        for root, stream_id, counted in await self._highlights.load_highlights(
            user_id, row.room_nid, after=after, upto=upto, but=but
        ):
            if stream_id > positions.get(_thread(root), 0):
                count = counts.setdefault(root, [0, 0])
                count[1] += 1
                count[0] += not counted
        return counts

    async def _not_counted(self, user_id: UserId) -> list[int]:
        """The numbers of the senders whose events do not count: the user and whom they ignore."""
        numbers = []
        for sender in (user_id, *await self._ignored.of(user_id)):
            number = await self._numbers.user_number(sender)
            if number is not None:
                numbers.append(number)
        return numbers


def _thread(root: str | None) -> str:
    return MAIN if root is None else root


def _read_up_to(receipts: list[ReceiptRow]) -> Mapping[str, int]:
    """The furthest position that was read, by thread id; the empty one is for unthreaded receipts."""
    reads: dict[str, int] = {}
    for receipt in receipts:
        reads[receipt.thread_id] = max(reads.get(receipt.thread_id, 0), receipt.point.stream_id)
    return reads


def _form(count: list[int]) -> dict[str, int]:
    return {"notification_count": count[0], "highlight_count": count[1]}
