"""Account data: JSON that clients keep at the server, stored as bytes and never looked into but for a few types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import RoomId
from homeserver.storage.accounts import NOT_DEACTIVATED
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Transaction

GLOBAL = RoomId("")
"""Stands for no room."""


@dataclass(frozen=True, slots=True)
class AccountDataRow:
    """One piece of account data; `room_id` is `GLOBAL` or that of a room."""

    room_id: RoomId
    type: str
    content: bytes


class AccountDataStore:
    """Account data by user, room and type."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(
        self, transaction: Transaction, user_id: UserId, room_id: RoomId, type_: str, content: bytes
    ) -> None:
        """Store a piece of account data."""
        await transaction.execute(
            "INSERT INTO account_data (user_id, room_id, type, stream_id, content)"
            f" SELECT $1::text, $2::text, $3::text, $4::bigint, $5::bytea WHERE {NOT_DEACTIVATED}"
            " ON CONFLICT (user_id, room_id, type) DO UPDATE SET stream_id = excluded.stream_id,"
            " content = excluded.content",
            user_id,
            room_id,
            type_,
            await transaction.next_position(),
            content,
        )
        transaction.announce(Topic.ACCOUNT_DATA, user_id)

    async def get(self, user_id: UserId, room_id: RoomId, type_: str) -> bytes | None:
        """One piece of account data."""
        value = await self._database.fetch_value(
            "SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3",
            user_id,
            room_id,
            type_,
        )
        return None if value is None else bytes(value)

    async def get_in(
        self, transaction: Transaction, user_id: UserId, room_id: RoomId, type_: str
    ) -> bytes | None:
        """One piece of account data, as a write that is going to change it sees it."""
        value = await transaction.fetch_value(
            "SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3",
            user_id,
            room_id,
            type_,
        )
        return None if value is None else bytes(value)

    async def load_changes(self, user_id: UserId, *, after: int, upto: int) -> list[AccountDataRow]:
        """The account data of a user, global and of rooms, that was set with `after < stream_id <= upto`."""
        rows = await self._database.fetch_all(
            "SELECT room_id, type, content FROM account_data"
            " WHERE user_id = $1 AND stream_id > $2 AND stream_id <= $3 ORDER BY stream_id",
            user_id,
            after,
            upto,
        )
        return [AccountDataRow(RoomId(room_id), type_, bytes(content)) for room_id, type_, content in rows]

    async def load_of_rooms(self, user_id: UserId, room_ids: list[RoomId], upto: int) -> list[AccountDataRow]:
        """All account data of a user in some rooms."""
        rows = await self._database.fetch_all(
            "SELECT room_id, type, content FROM account_data"
            " WHERE user_id = $1 AND room_id = ANY($2::text[]) AND stream_id <= $3 ORDER BY stream_id",
            user_id,
            room_ids,
            upto,
        )
        return [AccountDataRow(RoomId(room_id), type_, bytes(content)) for room_id, type_, content in rows]

    async def load_of_types(self, user_id: UserId, types: Sequence[str]) -> list[AccountDataRow]:
        """The account data of some types, global and of all rooms."""
        rows = await self._database.fetch_all(
            "SELECT room_id, type, content FROM account_data WHERE user_id = $1 AND type = ANY($2::text[])",
            user_id,
            list(types),
        )
        return [AccountDataRow(RoomId(room_id), type_, bytes(content)) for room_id, type_, content in rows]

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop everything that a user kept."""
        await transaction.execute("DELETE FROM account_data WHERE user_id = $1", user_id)
