"""Who is typing where; rows go when the typing ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import RoomId, UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.storage.database import Database, Transaction


class TypingStore:
    """Typing by room."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, transaction: Transaction, room_id: RoomId, user_id: UserId, expires_ts: int) -> None:
        """Note that a user is typing until a time in ms."""
        changed = await transaction.fetch_value(
            "SELECT 1 FROM typing WHERE room_id = $1 AND user_id = $2", room_id, user_id
        )
        await transaction.execute(
            "INSERT INTO typing (room_id, user_id, expires_ts, stream_id) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT (room_id, user_id) DO UPDATE SET expires_ts = excluded.expires_ts",
            room_id,
            user_id,
            expires_ts,
            await transaction.next_position(),
        )
        if changed is None:
            transaction.announce(Topic.TYPING, room_id)

    async def delete(self, transaction: Transaction, room_id: RoomId, user_id: UserId) -> None:
        """Note that a user is typing no more."""
        if await transaction.execute(
            "DELETE FROM typing WHERE room_id = $1 AND user_id = $2", room_id, user_id
        ):
            await transaction.next_position()
            transaction.announce(Topic.TYPING, room_id)

    async def delete_of_members(
        self, transaction: Transaction, members: Sequence[tuple[RoomId, UserId]]
    ) -> None:
        """Note that users type no more in rooms that they are out of."""
        by_room: dict[RoomId, list[UserId]] = {}
        for room_id, user_id in members:
            by_room.setdefault(room_id, []).append(user_id)
        for room_id, user_ids in by_room.items():
            if await transaction.execute(
                "DELETE FROM typing WHERE room_id = $1 AND user_id = ANY($2::text[])", room_id, user_ids
            ):
                await transaction.next_position()
                transaction.announce(Topic.TYPING, room_id)

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> int | None:
        """End what has run out; the answer is when the next one does."""
        rows = await transaction.fetch_all(
            "DELETE FROM typing WHERE expires_ts <= $1 RETURNING room_id", now_ms
        )
        if rows:
            await transaction.next_position()
        for (room_id,) in rows:
            transaction.announce(Topic.TYPING, room_id)
        return await transaction.fetch_value("SELECT min(expires_ts) FROM typing")

    async def load_in_rooms(self, room_ids: Iterable[RoomId], now_ms: int) -> dict[RoomId, list[UserId]]:
        """Who is typing in some rooms."""
        rows = await self._database.fetch_all(
            "SELECT room_id, user_id FROM typing WHERE room_id = ANY($1::text[]) AND expires_ts > $2"
            " ORDER BY stream_id",
            list(room_ids),
            now_ms,
        )
        typing: dict[RoomId, list[UserId]] = {}
        for room_id, user_id in rows:
            typing.setdefault(RoomId(room_id), []).append(UserId(user_id))
        return typing
