"""Who is, or was, in which room: the latest membership of each user, and the log of its changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import RoomId, UserId
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from homeserver.ids import ServerName
    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class MembershipRow:
    """The membership of a user in a room, by the member event in the room's current state."""

    user_id: UserId
    room_nid: int
    room_id: RoomId
    membership: str
    event_nid: int
    stream_id: int
    sender: UserId
    forgotten: bool


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """One entry of the log of memberships."""

    user_id: UserId
    stream_id: int
    room_nid: int
    room_id: RoomId
    membership: str
    event_nid: int


_COLUMNS = (
    "m.user_id, m.room_nid, r.room_id, m.membership, m.event_nid, m.stream_id, m.sender, m.forgotten"
    " FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid"
)


def _read(row: tuple) -> MembershipRow:  # type: ignore[type-arg]
    user_id, room_nid, room_id, membership, event_nid, stream_id, sender, forgotten = row
    return MembershipRow(
        user_id, room_nid, room_id, membership, event_nid, stream_id, sender, bool(forgotten)
    )


class MembershipStore:
    """Memberships by user and by room."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set_latest(
        self, transaction: Transaction, changes: Sequence[MembershipRow], latest: Sequence[MembershipRow]
    ) -> None:
        """Store changes of memberships in the log, and the latest membership of each user and room."""
        await transaction.execute_many(
            "INSERT INTO memberships (user_id, room_nid, membership, event_nid, stream_id, sender, forgotten)"
            " VALUES ($1, $2, $3, $4, $5, $6, 0) ON CONFLICT (user_id, room_nid) DO UPDATE SET"
            " membership = excluded.membership, event_nid = excluded.event_nid,"
            " stream_id = excluded.stream_id, sender = excluded.sender,"
            # "... will never appear in /sync until the user re-joins, is re-invited, or knocks."
            " forgotten = CASE WHEN excluded.membership IN ('leave', 'ban') THEN memberships.forgotten"
            " ELSE 0 END",
            [
                (row.user_id, row.room_nid, row.membership, row.event_nid, row.stream_id, row.sender)
                for row in latest
            ],
        )
        await transaction.execute_many(
            "INSERT INTO membership_log (user_id, stream_id, room_nid, membership, event_nid)"
            " VALUES ($1, $2, $3, $4, $5)",
            [(row.user_id, row.stream_id, row.room_nid, row.membership, row.event_nid) for row in changes],
        )

    async def forget(self, transaction: Transaction, user_id: UserId, room_nid: int) -> None:
        """Mark a left room as forgotten by the user."""
        await transaction.execute(
            "UPDATE memberships SET forgotten = 1"
            " WHERE user_id = $1 AND room_nid = $2 AND membership IN ('leave', 'ban')",
            user_id,
            room_nid,
        )
        await transaction.next_position()
        transaction.announce(Topic.MEMBERSHIP, user_id)

    async def get(self, room_nid: int, user_id: UserId) -> MembershipRow | None:
        """The membership of a user in a room."""
        row = await self._database.fetch_one(
            f"SELECT {_COLUMNS} WHERE m.user_id = $1 AND m.room_nid = $2", user_id, room_nid
        )
        return _read(row) if row else None

    async def load_of_user(self, user_id: UserId) -> list[MembershipRow]:
        """Every room that a user ever had a membership in."""
        rows = await self._database.fetch_all(f"SELECT {_COLUMNS} WHERE m.user_id = $1", user_id)
        return [_read(row) for row in rows]

    async def load_activity(self, user_id: UserId) -> list[tuple[RoomId, int]]:
        """The rooms that a user is in, with the position of what came last into each."""
        rows = await self._database.fetch_all(
            "SELECT r.room_id, r.last_position FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid"
            " WHERE m.user_id = $1 AND m.membership = 'join'",
            user_id,
        )
        return [(RoomId(room_id), position) for room_id, position in rows]

    async def load_once_joined(self, user_id: UserId) -> set[int]:
        """The numbers of the rooms that a user was in at any time."""
        rows = await self._database.fetch_all(
            "SELECT DISTINCT room_nid FROM membership_log WHERE user_id = $1 AND membership = 'join'", user_id
        )
        return {row[0] for row in rows}

    async def load_in_room(self, room_nid: int, memberships: Iterable[str]) -> list[MembershipRow]:
        """The members of a room with one of these memberships, oldest change first."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} WHERE m.room_nid = $1 AND m.membership = ANY($2::text[]) ORDER BY m.stream_id",
            room_nid,
            list(memberships),
        )
        return [_read(row) for row in rows]

    async def load_first_members(self, room_nid: int, memberships: Iterable[str], limit: int) -> list[UserId]:
        """The first `limit` users with one of these memberships, oldest change first."""
        rows = await self._database.fetch_all(
            "SELECT user_id FROM memberships WHERE room_nid = $1 AND membership = ANY($2::text[])"
            " ORDER BY stream_id LIMIT $3",
            room_nid,
            list(memberships),
            limit,
        )
        return [UserId(row[0]) for row in rows]

    async def load_first_joined_or_invited(
        self, room_nids: Iterable[int], limit: int
    ) -> dict[int, list[UserId]]:
        """The first `limit` users that are joined or invited, of many rooms by their numbers, oldest change first."""
        rows = await self._database.fetch_many(
            "SELECT room_nid, user_id FROM memberships WHERE room_nid = $1 AND membership IN ('join', 'invite')"
            " ORDER BY stream_id LIMIT $2",
            [(room_nid, limit) for room_nid in room_nids],
        )
        members: dict[int, list[UserId]] = {}
        for room_nid, user_id in rows:
            members.setdefault(room_nid, []).append(UserId(user_id))
        return members

    async def load_local_members(self, room_nid: int, server_name: ServerName, limit: int) -> list[UserId]:
        """The first `limit` joined members of a room that are of a server, oldest change first."""
        rows = await self._database.fetch_all(
            "SELECT user_id FROM memberships WHERE room_nid = $1 AND membership = 'join' AND user_id LIKE $2"
            " ORDER BY stream_id LIMIT $3",
            room_nid,
            f"%:{server_name}",
            limit,
        )
        return [UserId(row[0]) for row in rows]

    async def load_not_in_state(self, room_nid: int) -> list[MembershipRow]:
        """Invites into a room and knocks at it that its state knows nothing of."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} WHERE m.room_nid = $1 AND m.membership IN ('invite', 'knock') AND NOT EXISTS ("
            "SELECT 1 FROM current_state c WHERE c.room_nid = m.room_nid AND c.event_nid = m.event_nid)",
            room_nid,
        )
        return [_read(row) for row in rows]

    async def is_server_invited(self, room_nid: int, server_name: ServerName) -> bool:
        """Whether a user of a server is invited to a room."""
        return bool(
            await self._database.fetch_value(
                "SELECT 1 FROM memberships WHERE room_nid = $1 AND membership = 'invite' AND user_id LIKE $2"
                " LIMIT 1",
                room_nid,
                f"%:{server_name}",
            )
        )

    async def load_log_of_server(self, room_nid: int, server_name: ServerName) -> list[MembershipChange]:
        """Every change of the membership of a server's users in a room, oldest first."""
        rows = await self._database.fetch_all(
            "SELECT l.user_id, l.stream_id, l.room_nid, r.room_id, l.membership, l.event_nid"
            " FROM membership_log l JOIN rooms r ON r.room_nid = l.room_nid"
            " WHERE l.room_nid = $1 AND l.user_id LIKE $2 ORDER BY l.stream_id",
            room_nid,
            f"%:{server_name}",
        )
        return [MembershipChange(*row) for row in rows]

    async def load_guests(self, room_nid: int) -> list[UserId]:
        """The joined members of a room that are guests of this server."""
        rows = await self._database.fetch_all(
            "SELECT m.user_id FROM accounts a JOIN memberships m ON m.user_id = a.user_id"
            " WHERE a.is_guest = 1 AND m.room_nid = $1 AND m.membership = 'join'",
            room_nid,
        )
        return [UserId(row[0]) for row in rows]

    async def load_changes(self, user_id: UserId, *, after: int, upto: int) -> list[MembershipChange]:
        """The changes of a user's memberships with `after < stream_id <= upto`, oldest first."""
        rows = await self._database.fetch_all(
            "SELECT l.user_id, l.stream_id, l.room_nid, r.room_id, l.membership, l.event_nid"
            " FROM membership_log l JOIN rooms r ON r.room_nid = l.room_nid"
            " WHERE l.user_id = $1 AND l.stream_id > $2 AND l.stream_id <= $3 ORDER BY l.stream_id",
            user_id,
            after,
            upto,
        )
        return [MembershipChange(*row) for row in rows]

    async def get_at(self, user_id: UserId, room_nid: int, position: int) -> MembershipChange | None:
        """The membership of a user in a room as it was at a position of the log."""
        row = await self._database.fetch_one(
            "SELECT l.user_id, l.stream_id, l.room_nid, r.room_id, l.membership, l.event_nid"
            " FROM membership_log l JOIN rooms r ON r.room_nid = l.room_nid"
            " WHERE l.room_nid = $1 AND l.user_id = $2 AND l.stream_id <= $3 ORDER BY l.stream_id DESC LIMIT 1",
            room_nid,
            user_id,
            position,
        )
        return MembershipChange(*row) if row else None

    async def load_log(self, user_id: UserId, room_nid: int) -> list[MembershipChange]:
        """Every change of a user's membership in a room, oldest first."""
        rows = await self._database.fetch_all(
            "SELECT l.user_id, l.stream_id, l.room_nid, r.room_id, l.membership, l.event_nid"
            " FROM membership_log l JOIN rooms r ON r.room_nid = l.room_nid"
            " WHERE l.room_nid = $1 AND l.user_id = $2 ORDER BY l.stream_id",
            room_nid,
            user_id,
        )
        return [MembershipChange(*row) for row in rows]

    async def load_logs(self, user_id: UserId, room_nids: Iterable[int]) -> dict[int, list[MembershipChange]]:
        """The same for several rooms, by their numbers."""
        rows = await self._database.fetch_all(
            "SELECT l.user_id, l.stream_id, l.room_nid, r.room_id, l.membership, l.event_nid"
            " FROM membership_log l JOIN rooms r ON r.room_nid = l.room_nid"
            " WHERE l.room_nid = ANY($1::bigint[]) AND l.user_id = $2 ORDER BY l.stream_id",
            list(room_nids),
            user_id,
        )
        logs: dict[int, list[MembershipChange]] = {}
        for row in rows:
            logs.setdefault(row[2], []).append(MembershipChange(*row))
        return logs

    async def load_counts(self, room_nids: Iterable[int]) -> dict[int, tuple[int, int]]:
        """How many members are joined, and how many are invited, by room."""
        rows = await self._database.fetch_all(
            "SELECT room_nid, joined_members, invited_members FROM rooms WHERE room_nid = ANY($1::bigint[])",
            list(room_nids),
        )
        return {room_nid: (joined, invited) for room_nid, joined, invited in rows}

    async def count(self, room_nid: int) -> tuple[int, int]:
        """How many members are joined, and how many are invited."""
        row = await self._database.fetch_one(
            "SELECT joined_members, invited_members FROM rooms WHERE room_nid = $1", room_nid
        )
        return (row[0], row[1]) if row else (0, 0)

    async def share_a_room(self, user_id: UserId, other: UserId) -> bool:
        """Whether two users are joined to a common room."""
        return bool(
            await self._database.fetch_value(
                "SELECT 1 FROM memberships a JOIN memberships b ON b.room_nid = a.room_nid"
                " WHERE a.user_id = $1 AND a.membership = 'join' AND b.user_id = $2 AND b.membership = 'join'"
                " LIMIT 1",
                user_id,
                other,
            )
        )
