"""The room directory: aliases of this server, and which rooms are published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import RoomAlias, RoomId

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Transaction

_PUBLISHED = "FROM published_rooms p JOIN rooms r ON r.room_id = p.room_id WHERE r.joined_members > 0"


@dataclass(frozen=True, slots=True)
class PublishedRoom:
    """A room of the list; whatever changes its state changes `state_snapshot`."""

    room_nid: int
    room_id: RoomId
    joined_members: int
    state_snapshot: int


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

    async def load_published(self, *, limit: int = 2**31, offset: int = 0) -> list[PublishedRoom]:
        """The published rooms that somebody is in, largest first."""
        rows = await self._database.fetch_all(
            f"SELECT r.room_nid, r.room_id, r.joined_members, r.state_snapshot {_PUBLISHED}"
            " ORDER BY r.joined_members DESC, r.room_id LIMIT $1 OFFSET $2",
            limit,
            offset,
        )
        return [PublishedRoom(*row) for row in rows]

    async def count_published(self) -> int:
        """The number of published rooms that somebody is in."""
        return int(await self._database.fetch_value(f"SELECT count(*) {_PUBLISHED}") or 0)
