"""The room directory: aliases of this server, and which rooms are published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import RoomAlias, RoomId

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Transaction


class DirectoryStore:
    """Aliases and published rooms."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert_alias(
        self, transaction: Transaction, alias: RoomAlias, room_id: RoomId, creator: UserId, now_ms: int
    ) -> bool:
        """Store an alias; False where it is taken."""
        return bool(
            await transaction.execute(
                "INSERT INTO aliases (alias, room_id, creator, created_ts) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT DO NOTHING",
                alias,
                room_id,
                creator,
                now_ms,
            )
        )

    async def delete_alias(self, transaction: Transaction, alias: RoomAlias) -> bool:
        """Drop an alias; False where there is none."""
        return bool(await transaction.execute("DELETE FROM aliases WHERE alias = $1", alias))

    async def move_aliases(self, transaction: Transaction, old: RoomId, new: RoomId) -> None:
        """Let the aliases of a room lead to another one."""
        await transaction.execute("UPDATE aliases SET room_id = $2 WHERE room_id = $1", old, new)

    async def get_alias(self, alias: RoomAlias) -> tuple[RoomId, UserId] | None:
        """The room of an alias, and who made it."""
        row = await self._database.fetch_one("SELECT room_id, creator FROM aliases WHERE alias = $1", alias)
        return (row[0], row[1]) if row else None

    async def load_aliases(self, room_id: RoomId) -> list[RoomAlias]:
        """The aliases of a room."""
        rows = await self._database.fetch_all(
            "SELECT alias FROM aliases WHERE room_id = $1 ORDER BY alias", room_id
        )
        return [RoomAlias(row[0]) for row in rows]

    async def set_published(self, transaction: Transaction, room_id: RoomId, *, published: bool) -> None:
        """Publish a room, or no longer."""
        if published:
            await transaction.execute(
                "INSERT INTO published_rooms (room_id) VALUES ($1) ON CONFLICT DO NOTHING", room_id
            )
        else:
            await transaction.execute("DELETE FROM published_rooms WHERE room_id = $1", room_id)

    async def is_published(self, room_id: RoomId) -> bool:
        """Whether a room is published."""
        return bool(
            await self._database.fetch_value("SELECT 1 FROM published_rooms WHERE room_id = $1", room_id)
        )

    async def load_published(self) -> list[tuple[RoomId, int]]:
        """The published rooms with their number of joined members, largest first."""
        rows = await self._database.fetch_all(
            "SELECT r.room_id, r.joined_members FROM published_rooms p JOIN rooms r ON r.room_id = p.room_id"
            " ORDER BY r.joined_members DESC, r.room_id"
        )
        return [(RoomId(row[0]), row[1]) for row in rows]
