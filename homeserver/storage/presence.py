"""Presence: whether users are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.storage.accounts import NOT_DEACTIVATED
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """The presence of a user: `online`, `unavailable` or `offline`."""

    user_id: UserId
    state: str
    status_message: str | None
    last_active_ts: int
    display_name: bytes | None = None
    """From the profile, as JSON; like the avatar it is read with the row and never written with it."""
    avatar_url: bytes | None = None


_COLUMNS = (
    "p.user_id, p.state, p.status_message, p.last_active_ts,"
    " (SELECT value FROM profiles WHERE user_id = p.user_id AND field = 'displayname'),"
    " (SELECT value FROM profiles WHERE user_id = p.user_id AND field = 'avatar_url')"
)
_OF_NEIGHBOURS = (
    f"SELECT {_COLUMNS} FROM memberships b"
    " JOIN memberships a ON a.room_nid = b.room_nid AND a.membership = 'join'"
    " JOIN presence p ON p.user_id = a.user_id AND p.stream_id <= $3"
    " WHERE b.user_id = $1 AND b.membership = 'join' AND a.user_id <> $1"
)
"""`b` is the user, `a` somebody in one of their rooms."""


def _read(row: tuple) -> PresenceRow:  # type: ignore[type-arg]
    user_id, state, status_message, last_active_ts, *profile = row
    display_name, avatar_url = (None if value is None else bytes(value) for value in profile)
    return PresenceRow(user_id, state, status_message, last_active_ts, display_name, avatar_url)


class PresenceStore:
    """Presence by user."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, transaction: Transaction, row: PresenceRow) -> None:
        """Store the presence of a user; of one whose account was closed meanwhile there is none."""
        await transaction.execute(
            "INSERT INTO presence (user_id, state, status_message, last_active_ts, stream_id)"
            f" SELECT $1::text, $2::text, $3::text, $4::bigint, $5::bigint WHERE {NOT_DEACTIVATED}"
            " ON CONFLICT (user_id) DO UPDATE SET state = excluded.state,"
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
        rows = await self.load([user_id])
        return rows[0] if rows else None

    async def load(self, user_ids: Sequence[UserId]) -> list[PresenceRow]:
        """The presence of some users; those without one are left out."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM presence p WHERE p.user_id = ANY($1::text[])", list(user_ids)
        )
        return [_read(row) for row in rows]

    async def load_not_offline(self) -> list[PresenceRow]:
        """Everybody who was about when the program stopped."""
        rows = await self._database.fetch_all(f"SELECT {_COLUMNS} FROM presence p WHERE p.state <> 'offline'")
        return [_read(row) for row in rows]

    async def load_seen_by(self, user_id: UserId, *, after: int, upto: int) -> list[PresenceRow]:
        """The presence of a user and of those who share a room with them, as far as it is news.

        It is news where it changed with `after < stream_id <= upto`, or where either of the two came into a room of
        the other's since `after`.
        """
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM presence p"
            " WHERE p.stream_id > $2 AND p.stream_id <= $3 AND (p.user_id = $1 OR EXISTS"
            " (SELECT 1 FROM memberships a JOIN memberships b ON b.room_nid = a.room_nid"
            " WHERE a.user_id = p.user_id AND a.membership = 'join'"
            " AND b.user_id = $1 AND b.membership = 'join'))"
            f" UNION {_OF_NEIGHBOURS} AND a.stream_id > $2"
            f" UNION {_OF_NEIGHBOURS} AND b.stream_id > $2",
            user_id,
            after,
            upto,
        )
        return [_read(row) for row in rows]

    async def load_in_rooms(self, room_nids: Sequence[int], *, upto: int) -> list[PresenceRow]:
        """The presence of the members of some rooms, as far as it is not newer than `upto`."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM presence p WHERE p.stream_id <= $2 AND p.user_id IN (SELECT user_id"
            " FROM memberships WHERE room_nid = ANY($1::bigint[]) AND membership = 'join')",
            list(room_nids),
            upto,
        )
        return [_read(row) for row in rows]

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Forget the presence of a user."""
        await transaction.execute("DELETE FROM presence WHERE user_id = $1", user_id)
