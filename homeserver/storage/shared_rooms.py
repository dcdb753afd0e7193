"""Who shared encrypted rooms with whom, and when: memberships by position, and since when rooms are encrypted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import RoomId, UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One change of a membership in a room, with the membership that there was at the start of an interval."""

    room_nid: int
    user_id: UserId
    stream_id: int
    membership: str
    at_start: str | None


_CHANGES = (
    "SELECT l.room_nid, l.user_id, l.stream_id, l.membership, ("
    "SELECT b.membership FROM membership_log b WHERE b.room_nid = l.room_nid AND b.user_id = l.user_id"
    " AND b.stream_id <= $2 ORDER BY b.stream_id DESC LIMIT 1) FROM membership_log l"
)


class SharedRoomStore:
    """Encrypted rooms and their members over time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def note(
        self, transaction: Transaction, encrypted: Mapping[int, int], moved: Collection[int]
    ) -> None:
        """Note which rooms are encrypted from which position on, and that people came into rooms or went out.

        Where an encrypted room is among them, that is announced. Of a room that is encrypted already, the first
        position stays: a room that once was encrypted stays so.
        """
        await transaction.execute_many(
            "UPDATE rooms SET encrypted_position = $2 WHERE room_nid = $1 AND encrypted_position IS NULL",
            list(encrypted.items()),
        )
        rows = await transaction.fetch_all(
            "SELECT room_id FROM rooms WHERE room_nid = ANY($1::bigint[]) AND encrypted_position IS NOT NULL",
            [*encrypted, *moved],
        )
        for (room_id,) in rows:
            transaction.announce(Topic.SHARED_ROOM, RoomId(room_id))

    async def load_encrypted(self, room_nids: Iterable[int], upto: int) -> dict[int, int]:
        """Those of these rooms that were encrypted at a position, each with the position since when."""
        rows = await self._database.fetch_all(
            "SELECT room_nid, encrypted_position FROM rooms"
            " WHERE room_nid = ANY($1::bigint[]) AND encrypted_position <= $2",
            list(room_nids),
            upto,
        )
        return dict(rows)

    async def load_changes_of_rooms(
        self, room_nids: Iterable[int], *, after: int, upto: int
    ) -> list[MemberChange]:
        """Every change of a membership in these rooms with `after < stream_id <= upto`, oldest first."""
        rows = await self._database.fetch_all(
            f"{_CHANGES} WHERE l.room_nid = ANY($1::bigint[]) AND l.stream_id > $2 AND l.stream_id <= $3"
            " ORDER BY l.stream_id",
            list(room_nids),
            after,
            upto,
        )
        return [MemberChange(*row) for row in rows]

    async def load_changes_of_user(self, user_id: UserId, *, after: int) -> list[MemberChange]:
        """Every change of a user's memberships with `after < stream_id`, oldest first."""
        rows = await self._database.fetch_all(
            f"{_CHANGES} WHERE l.user_id = $1 AND l.stream_id > $2 ORDER BY l.stream_id", user_id, after
        )
        return [MemberChange(*row) for row in rows]

    async def load_joined(
        self, room_nids: Collection[int], *, at: int, user_ids: Collection[UserId] | None = None
    ) -> dict[int, set[UserId]]:
        """Who was in these rooms at a position, or who among some users."""
        joined: dict[int, set[UserId]] = {room_nid: set() for room_nid in room_nids}
        if not room_nids:
            return joined
        sql = (
            "SELECT m.room_nid, m.user_id FROM memberships m"
            f" WHERE m.room_nid = ANY($1::bigint[]) AND {joined_at('$2')}"
        )
        if user_ids is None:
            rows = await self._database.fetch_all(sql, list(room_nids), at)
        else:
            sql += " AND m.user_id = ANY($3::text[])"
            rows = await self._database.fetch_all(sql, list(room_nids), at, list(user_ids))
        for room_nid, user_id in rows:
            joined[room_nid].add(user_id)
        return joined


def joined_at(position: str) -> str:
    """The condition that the membership `m` was `join` at a position: now, or by the log where it has changed since."""
    return (
        f"CASE WHEN m.stream_id <= {position} THEN m.membership ELSE ("
        "SELECT b.membership FROM membership_log b WHERE b.room_nid = m.room_nid AND b.user_id = m.user_id"
        f" AND b.stream_id <= {position} ORDER BY b.stream_id DESC LIMIT 1) END = 'join'"
    )
