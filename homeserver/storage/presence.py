"""Presence: whether users are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """The presence of a user: `online`, `unavailable` or `offline`."""

    user_id: UserId
    state: str
    status_message: str | None
    last_active_ts: int


class PresenceStore:
    """Presence by user."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, transaction: Transaction, row: PresenceRow) -> None:
        """Store the presence of a user."""
        await transaction.execute(
            "INSERT INTO presence (user_id, state, status_message, last_active_ts, stream_id)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id) DO UPDATE SET state = excluded.state,"
            " status_message = excluded.status_message, last_active_ts = excluded.last_active_ts,"
            " stream_id = excluded.stream_id",
            row.user_id,
            row.state,
            row.status_message,
            row.last_active_ts,
            await transaction.next_position(),
        )
        transaction.announce(Topic.PRESENCE, row.user_id)

    async def get(self, user_id: UserId) -> PresenceRow | None:
        """The presence of a user."""
        row = await self._database.fetch_one(
            "SELECT user_id, state, status_message, last_active_ts FROM presence WHERE user_id = $1", user_id
        )
        return PresenceRow(*row) if row else None

    async def load_not_offline(self) -> list[PresenceRow]:
        """Everybody who was about when the program stopped."""
        rows = await self._database.fetch_all(
            "SELECT user_id, state, status_message, last_active_ts FROM presence WHERE state <> 'offline'"
        )
        return [PresenceRow(*row) for row in rows]

    async def load_seen_by(self, user_id: UserId, *, after: int, upto: int) -> list[PresenceRow]:
        """The presence of a user and of those who share a room with them, as far as it is news.

        It is news where it changed with `after < stream_id <= upto`, or where either of the two came into a room of
        the other's since `after`.
        """
        rows = await self._database.fetch_all(
            "SELECT p.user_id, p.state, p.status_message, p.last_active_ts FROM presence p"
            " WHERE p.stream_id > $2 AND p.stream_id <= $3 AND (p.user_id = $1 OR EXISTS"
            " (SELECT 1 FROM memberships a JOIN memberships b ON b.room_nid = a.room_nid"
            " WHERE a.user_id = p.user_id AND a.membership = 'join'"
            " AND b.user_id = $1 AND b.membership = 'join'))"
            " UNION SELECT p.user_id, p.state, p.status_message, p.last_active_ts FROM memberships b"
            " JOIN memberships a ON a.room_nid = b.room_nid AND a.membership = 'join'"
            " AND (a.stream_id > $2 OR b.stream_id > $2)"
            " JOIN presence p ON p.user_id = a.user_id AND p.stream_id <= $3"
            " WHERE b.user_id = $1 AND b.membership = 'join' AND a.user_id <> $1",
            user_id,
            after,
            upto,
        )
        return [PresenceRow(*row) for row in rows]

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Forget the presence of a user."""
        await transaction.execute("DELETE FROM presence WHERE user_id = $1", user_id)
