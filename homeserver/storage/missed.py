"""What arrived in many rooms in a stretch of the log: how much, and the events in their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from homeserver.ids import UserId
    from homeserver.storage.database import Database


@dataclass(frozen=True, slots=True)
class ArrivedInRoom:
    """How much arrived in a room; times are those of the first and of the last event, in milliseconds."""

    messages: int
    bytes: int
    first_ts: int
    last_ts: int


@dataclass(frozen=True, slots=True)
class Mention:
    """An event that highlights a user."""

    room_nid: int
    event_nid: int
    position: int


class MissedStore:
    """Reads over rooms, by their numbers; positions are `after < position <= upto` throughout."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_with_news(self, room_nids: Sequence[int], after: int) -> list[int]:
        """Those of these rooms in which something arrived after a position."""
        rows = await self._database.fetch_all(
            "SELECT room_nid FROM rooms WHERE room_nid = ANY($1::bigint[]) AND last_position > $2",
            list(room_nids),
            after,
        )
        return [row[0] for row in rows]

    async def load_totals(
        self, room_nids: Sequence[int], *, after: int, upto: int
    ) -> dict[int, ArrivedInRoom]:
        """How much arrived in each room, where anything did: three rows are read of each, however much it is."""
        place = "SELECT event_nid FROM events WHERE room_nid = r.room_nid AND status = 0"
        rows = await self._database.fetch_all(
            "SELECT r.room_nid, l.messages_so_far - coalesce(b.messages_so_far, 0),"
            " l.bytes_so_far - coalesce(b.bytes_so_far, 0), f.origin_server_ts, l.origin_server_ts FROM rooms r"
            f" JOIN events f ON f.event_nid = ({place} AND stream_id > $2 AND stream_id <= $3"
            " ORDER BY stream_id LIMIT 1)"
            f" JOIN events l ON l.event_nid = ({place} AND stream_id > $2 AND stream_id <= $3"
            " ORDER BY stream_id DESC LIMIT 1)"
            f" LEFT JOIN events b ON b.event_nid = ({place} AND stream_id > 0 AND stream_id <= $2"
            " ORDER BY stream_id DESC LIMIT 1)"
            " WHERE r.room_nid = ANY($1::bigint[]) AND r.last_position > $2",
            list(room_nids),
            after,
            upto,
        )
        return {room_nid: ArrivedInRoom(*columns) for room_nid, *columns in rows}

    async def count_messages_of(
        self, room_nids: Sequence[int], sender_nids: Sequence[int], *, after: int, upto: int
    ) -> dict[int, int]:
        """How many messages some users sent in each room."""
        rows = await self._database.fetch_all(
            "SELECT room_nid, count(*) FROM events WHERE room_nid = ANY($1::bigint[]) AND notifies = 1"
            " AND stream_id > $3 AND stream_id <= $4 AND sender_nid = ANY($2::bigint[]) GROUP BY room_nid",
            list(room_nids),
            list(sender_nids),
            after,
            upto,
        )
        return dict(rows)

    async def load_mentions(
        self,
        user_id: UserId,
        room_nids: Sequence[int],
        *,
        after: int,
        upto: int,
        but: Sequence[int],
        limit: int,
    ) -> list[Mention]:
        """What others wrote that highlights a user and that no receipt of theirs has passed: the newest, oldest first.

        What the senders `but` (by number) wrote is not among it.
        """
        rows = await self._database.fetch_all(
            "SELECT h.room_nid, e.event_nid, h.stream_id FROM highlights h"
            " JOIN rooms r ON r.room_nid = h.room_nid"
            " JOIN events e ON e.room_nid = h.room_nid AND e.stream_id = h.stream_id AND e.status = 0"
            " WHERE h.user_id IN ($1, '') AND h.room_nid = ANY($2::bigint[]) AND h.stream_id > $3"
            " AND h.stream_id <= $4 AND NOT (h.sender_nid = ANY($5::bigint[])) AND h.sender_nid <>"
            " coalesce((SELECT user_nid FROM user_numbers WHERE user_id = $1), 0)"
            # What highlights everybody stays for the others when one has read it.
            " AND NOT EXISTS (SELECT 1 FROM receipts p WHERE p.room_id = r.room_id AND p.user_id = $1"
            " AND p.thread_id IN ('', coalesce(h.thread_root, 'main')) AND p.event_stream_id >= h.stream_id)"
            " GROUP BY h.room_nid, e.event_nid, h.stream_id ORDER BY h.stream_id DESC LIMIT $6",
            user_id,
            list(room_nids),
            after,
            upto,
            list(but),
            limit,
        )
        return [Mention(*row) for row in reversed(rows)]

    async def load_arrivals(
        self, room_nids: Sequence[int], *, after: int, upto: int, limit: int
    ) -> list[tuple[int, int, int]]:
        """(position, room number, event number) of the oldest `limit` timeline events, in the order of the log."""
        rows = await self._database.fetch_all(
            "SELECT stream_id, room_nid, event_nid FROM events WHERE room_nid = ANY($1::bigint[]) AND status = 0"
            " AND stream_id > $2 AND stream_id <= $3 ORDER BY stream_id LIMIT $4",
            list(room_nids),
            after,
            upto,
            limit,
        )
        return [(row[0], row[1], row[2]) for row in rows]

    async def load_sent(
        self,
        user_id: UserId,
        room_nids: Sequence[int],
        left: Collection[int],
        *,
        after: tuple[int, int],
        upto_ts: int,
        limit: int,
    ) -> list[tuple[int, int, int, int]]:
        """(time, number of the event, room number, position) of the first `limit` timeline events by time of sending.

        Those after a time and, at that time, with a greater number than `after` says, up to a time. In milliseconds. Of
        the rooms that the user has left nothing is looked at that came later: how much that is would show.
        """
        membership = "FROM membership_log l WHERE l.room_nid = e.room_nid AND l.user_id = $6 AND l.membership"
        rows = await self._database.fetch_all(
            "SELECT e.origin_server_ts, e.event_nid, e.room_nid, e.stream_id FROM events e"
            " WHERE e.room_nid = ANY($1::bigint[]) AND e.status = 0 AND e.origin_server_ts >= $2"
            " AND e.origin_server_ts <= $3 AND (e.origin_server_ts > $2 OR e.event_nid > $4)"
            # The plus keeps SQLite from going through all memberships of the user.
            " AND (NOT (e.room_nid = ANY($7::bigint[])) OR e.stream_id <="
            f" (SELECT min(+l.stream_id) {membership} <> 'join' AND l.stream_id >"
            f" (SELECT max(+l.stream_id) {membership} = 'join')))"
            " ORDER BY e.origin_server_ts, e.event_nid LIMIT $5",
            list(room_nids),
            after[0],
            upto_ts,
            after[1],
            limit,
            user_id,
            list(left),
        )
        return [(row[0], row[1], row[2], row[3]) for row in rows]
