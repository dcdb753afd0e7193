"""How other servers described rooms that this server is not in to the users whom they invited, or who knock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Transaction


class StrippedStateStore:
    """Stripped state as JSON, by user and room."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, transaction: Transaction, user_id: UserId, room_nid: int, events: bytes) -> None:
        """Store what a user is shown of a room."""
        await transaction.execute_many(
            "INSERT INTO stripped_state (user_id, room_nid, events) VALUES ($1, $2, $3)"
            " ON CONFLICT (user_id, room_nid) DO UPDATE SET events = excluded.events",
            [(user_id, room_nid, events)],
        )

    async def get(self, user_id: UserId, room_nid: int) -> bytes | None:
        """What a user is shown of a room; None where this server knows better."""
        events = await self._database.fetch_value(
            "SELECT events FROM stripped_state WHERE user_id = $1 AND room_nid = $2", user_id, room_nid
        )
        return None if events is None else bytes(events)

    async def delete(self, transaction: Transaction, user_id: UserId, room_nid: int) -> None:
        """Drop what a user was shown of a room."""
        await transaction.execute(
            "DELETE FROM stripped_state WHERE user_id = $1 AND room_nid = $2", user_id, room_nid
        )

    async def delete_of_room(self, transaction: Transaction, room_nid: int) -> None:
        """Drop what users were shown of a room: this server knows it now."""
        await transaction.execute("DELETE FROM stripped_state WHERE room_nid = $1", room_nid)
