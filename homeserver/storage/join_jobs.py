"""Joins of rooms by way of other servers that are under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from homeserver.ids import RoomId, ServerName, UserId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class JoinJob:
    """A user who comes into a room, the servers to be asked, and what their member event says besides."""

    user_id: UserId
    room_id: RoomId
    servers: Sequence[ServerName]
    content: dict[str, Any]
    created_ts: int


class JoinJobStore:
    """One for each user and room."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, transaction: Transaction, job: JoinJob) -> None:
        """Remember a join that begins; one that is known stays as it is."""
        await transaction.execute(
            "INSERT INTO join_jobs (user_id, room_id, servers, content, created_ts) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT DO NOTHING",
            job.user_id,
            job.room_id,
            orjson.dumps(list(job.servers)).decode(),
            orjson.dumps(job.content).decode(),
            job.created_ts,
        )

    async def delete(self, transaction: Transaction, user_id: UserId, room_id: RoomId) -> None:
        """Forget a join that has ended, well or not."""
        await transaction.execute(
            "DELETE FROM join_jobs WHERE user_id = $1 AND room_id = $2", user_id, room_id
        )

    async def load(self) -> list[JoinJob]:
        """All that are under way, oldest first."""
        rows = await self._database.fetch_all(
            "SELECT user_id, room_id, servers, content, created_ts FROM join_jobs ORDER BY created_ts"
        )
        return [
            JoinJob(
                UserId(user_id),
                RoomId(room_id),
                [ServerName(name) for name in orjson.loads(servers)],
                orjson.loads(content),
                created_ts,
            )
            for user_id, room_id, servers, content, created_ts in rows
        ]
