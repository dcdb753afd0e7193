"""What counts as unread: events that notify everybody, and rows only for those that highlight somebody."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Transaction

    HighlightRow = tuple[str, int, int, int, str | None, int]


class HighlightStore:
    """Events that mention a user, and the number of events that notify."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, transaction: Transaction, rows: Sequence[HighlightRow]) -> None:
        """Store rows of (user, or `EVERYBODY`; room number, position, sender number, thread root, counted).

        `counted` is 1 where the event notifies everybody anyway. Who is not in the room gets none.
        """
        await transaction.execute_many(
            "INSERT INTO highlights (user_id, room_nid, stream_id, sender_nid, thread_root, counted)"
            " SELECT $1::text, $2::bigint, $3::bigint, $4::bigint, $5::text, $6::smallint WHERE $1::text = ''"
            " OR EXISTS (SELECT 1 FROM memberships"
            " WHERE user_id = $1::text AND room_nid = $2::bigint AND membership = 'join') ON CONFLICT DO NOTHING",
            rows,
        )

    async def delete_event(
        self, transaction: Transaction, room_nid: int, stream_id: int, user_ids: Iterable[str]
    ) -> None:
        """Forget the highlights of one event for these users, since it was redacted."""
        await transaction.execute_many(
            "DELETE FROM highlights WHERE user_id = $1 AND room_nid = $2 AND stream_id = $3",
            [(user_id, room_nid, stream_id) for user_id in user_ids],
        )

    async def delete_read(self, transaction: Transaction, user_id: UserId, room_nid: int, upto: int) -> None:
        """Forget the highlights that a user has read."""
        await transaction.execute(
            "DELETE FROM highlights WHERE user_id = $1 AND room_nid = $2 AND stream_id <= $3",
            user_id,
            room_nid,
            upto,
        )

    async def delete_read_of_members(
        self, transaction: Transaction, reads: Sequence[tuple[UserId, int, int]]
    ) -> None:
        """Forget what users have read: rows of (user, room number, up to where)."""
        await transaction.execute_many(
            "DELETE FROM highlights WHERE user_id = $1 AND room_nid = $2 AND stream_id <= $3", reads
        )

    async def count_notifying(
        self, starts: Iterable[tuple[int, int]], *, upto: int, but: Sequence[int]
    ) -> list[tuple[int, int, str | None, int]]:
        """How many events notify after places in rooms, given as (room number, position), and up to a position.

        Rows of (room number, position, thread root or None, number). Those of the senders `but` (by number) are not
        counted.
        """
        rows = await self._database.fetch_many(
            "SELECT room_nid, $2::bigint, thread_root, count(*) FROM events WHERE room_nid = $1::bigint"
            " AND stream_id > $2::bigint AND stream_id <= $3::bigint AND notifies = 1"
            " AND NOT (sender_nid = ANY($4::bigint[])) GROUP BY room_nid, thread_root",
            [(room_nid, after, upto, list(but)) for room_nid, after in starts],
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def load_last_sent(
        self, starts: Iterable[tuple[int, int]], sender_nid: int, *, upto: int
    ) -> list[tuple[int, str | None, int]]:
        """Rows of (room number, thread root or None, position) of the last notifying events that somebody sent there."""
        rows = await self._database.fetch_many(
            "SELECT room_nid, thread_root, max(stream_id) FROM events WHERE room_nid = $1 AND stream_id > $2"
            " AND stream_id <= $3 AND notifies = 1 AND sender_nid = $4 GROUP BY room_nid, thread_root",
            [(room_nid, after, upto, sender_nid) for room_nid, after in starts],
        )
        return [(row[0], row[1], row[2]) for row in rows]

    async def load_highlights(
        self, user_id: UserId, starts: Iterable[tuple[int, int]], *, upto: int, but: Sequence[int]
    ) -> list[tuple[int, str | None, int, bool]]:
        """Rows of (room number, thread root or None, position, counted) of the events that highlight a user there."""
        rows = await self._database.fetch_many(
            "SELECT room_nid, thread_root, stream_id, counted FROM highlights WHERE user_id IN ($1, '')"
            " AND room_nid = $2 AND stream_id > $3 AND stream_id <= $4 AND NOT (sender_nid = ANY($5::bigint[]))"
            " ORDER BY stream_id",
            [(user_id, room_nid, after, upto, list(but)) for room_nid, after in starts],
        )
        return [(row[0], row[1], row[2], bool(row[3])) for row in rows]
