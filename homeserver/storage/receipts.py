"""Receipts: up to which event somebody has read a room, or a thread of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import RoomId
from homeserver.storage.announcements import Topic
from homeserver.storage.stored_event import RoomPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from homeserver.ids import EventId, UserId
    from homeserver.storage.database import Database, Transaction

PUBLIC = "m.read"
PRIVATE = "m.read.private"


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """One receipt; `thread_id` is empty for an unthreaded one, `main` or the root of a thread."""

    room_id: RoomId
    user_id: UserId
    receipt_type: str
    thread_id: str
    event_id: EventId
    point: RoomPoint
    ts: int
    stream_id: int = 0
    """Where it stands in the log itself; 0 before it is stored."""


_COLUMNS = "room_id, user_id, receipt_type, thread_id, event_id, event_depth, event_stream_id, ts, stream_id"


class ReceiptStore:
    """Receipts by room and user."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, transaction: Transaction, receipt: ReceiptRow) -> bool:
        """Store a receipt, unless the one that is there points further; the answer is whether it was stored."""
        known = await transaction.fetch_one(
            "SELECT event_depth, event_stream_id FROM receipts"
            " WHERE room_id = $1 AND user_id = $2 AND receipt_type = $3 AND thread_id = $4",
            receipt.room_id,
            receipt.user_id,
            receipt.receipt_type,
            receipt.thread_id,
        )
        if known is not None and RoomPoint(*known) >= receipt.point:
            return False
        await transaction.execute(
            "INSERT INTO receipts (room_id, user_id, receipt_type, thread_id, event_id, event_depth,"
            " event_stream_id, ts, stream_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
            " ON CONFLICT (room_id, user_id, receipt_type, thread_id) DO UPDATE SET"
            " event_id = excluded.event_id, event_depth = excluded.event_depth,"
            " event_stream_id = excluded.event_stream_id, ts = excluded.ts, stream_id = excluded.stream_id",
            receipt.room_id,
            receipt.user_id,
            receipt.receipt_type,
            receipt.thread_id,
            receipt.event_id,
            receipt.point.depth,
            receipt.point.stream_id,
            receipt.ts,
            await transaction.next_position(),
        )
        transaction.announce(Topic.RECEIPTS, receipt.room_id)
        transaction.announce(Topic.READ, f"{receipt.user_id}|{receipt.room_id}")
        return True

    async def load_changes(
        self, room_ids: Iterable[RoomId], user_id: UserId, *, after: int, upto: int
    ) -> list[ReceiptRow]:
        """Receipts in rooms set with `after < stream_id <= upto` that a user may see: public ones and their own."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM receipts WHERE room_id = ANY($1::text[]) AND stream_id > $2 AND stream_id <= $3"
            f" AND (receipt_type <> '{PRIVATE}' OR user_id = $4) ORDER BY stream_id",
            list(room_ids),
            after,
            upto,
            user_id,
        )
        return [_read(row) for row in rows]

    async def load_for_timelines(
        self, user_id: UserId, timelines: Mapping[RoomId, tuple[int, Iterable[EventId]]], *, upto: int
    ) -> list[ReceiptRow]:
        """The receipts at some events of rooms that a user may see, and all of their own in these rooms.

        With the events of each room comes a position that none of them is older than.
        """
        rows = await self._database.fetch_many(
            f"SELECT {_COLUMNS} FROM receipts WHERE room_id = $1 AND stream_id > $2 AND stream_id <= $3"
            f" AND event_id = ANY($4::text[]) AND receipt_type <> '{PRIVATE}' AND user_id <> $5"
            f" UNION ALL SELECT {_COLUMNS} FROM receipts WHERE room_id = $1 AND user_id = $5 AND stream_id <= $3"
            " ORDER BY stream_id",
            [
                (room_id, since, upto, list(event_ids), user_id)
                for room_id, (since, event_ids) in timelines.items()
            ],
        )
        return [_read(row) for row in rows]

    async def load_changed_rooms(self, room_ids: Iterable[RoomId], *, after: int, upto: int) -> list[RoomId]:
        """Those of these rooms in which anybody has read on with `after < position <= upto`."""
        rows = await self._database.fetch_all(
            "SELECT DISTINCT room_id FROM receipts WHERE room_id = ANY($1::text[])"
            " AND stream_id > $2 AND stream_id <= $3",
            list(room_ids),
            after,
            upto,
        )
        return [RoomId(row[0]) for row in rows]

    async def load_read_rooms(
        self, room_ids: Iterable[RoomId], user_id: UserId, *, after: int, upto: int
    ) -> list[RoomId]:
        """Those of these rooms in which a user has read on with `after < position <= upto`."""
        rows = await self._database.fetch_all(
            "SELECT DISTINCT room_id FROM receipts WHERE room_id = ANY($1::text[]) AND user_id = $2"
            " AND stream_id > $3 AND stream_id <= $4",
            list(room_ids),
            user_id,
            after,
            upto,
        )
        return [RoomId(row[0]) for row in rows]

    async def load_own(self, user_id: UserId, room_ids: Iterable[RoomId]) -> list[ReceiptRow]:
        """All receipts of a user in some rooms."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM receipts WHERE room_id = ANY($1::text[]) AND user_id = $2",
            list(room_ids),
            user_id,
        )
        return [_read(row) for row in rows]

    async def load_of_users(
        self, room_id: RoomId, user_ids: Iterable[UserId]
    ) -> dict[UserId, list[ReceiptRow]]:
        """All receipts of some users in a room, of those who have any."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM receipts WHERE room_id = $1 AND user_id = ANY($2::text[])",
            room_id,
            list(user_ids),
        )
        found: dict[UserId, list[ReceiptRow]] = {}
        for row in map(_read, rows):
            found.setdefault(row.user_id, []).append(row)
        return found


def _read(row: tuple) -> ReceiptRow:  # type: ignore[type-arg]
    room_id, user_id, receipt_type, thread_id, event_id, depth, place, ts, stream_id = row
    return ReceiptRow(
        room_id, user_id, receipt_type, thread_id, event_id, RoomPoint(depth, place), ts, stream_id
    )
