"""The threads that users have subscribed to (MSC4306), and those that they have subscribed to no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import EventId, RoomId
from homeserver.storage.accounts import NOT_DEACTIVATED
from homeserver.storage.announcements import Topic

if TYPE_CHECKING:
    from homeserver.ids import UserId
    from homeserver.storage.database import Database, Reader, Transaction

EVERYWHERE = RoomId("")
"""Stands for no room, in the row that says since when a user takes part: from there on other threads count as unread."""
MAX_OF_USER = 10_000
"""So many threads a user can have to do with; the oldest ended subscription makes room for another."""


@dataclass(frozen=True, slots=True)
class ThreadSubscription:
    """What a user is to a thread; `stream_id` is where that changed last."""

    room_id: RoomId
    thread_root: EventId
    is_subscribed: bool
    automatic: bool
    stream_id: int


_IN_A_ROOM = f"room_id <> '{EVERYWHERE}'"
_COLUMNS = "room_id, thread_root, is_subscribed, automatic, stream_id"


class ThreadSubscriptionStore:
    """Subscriptions by user."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(
        self,
        transaction: Transaction,
        user_id: UserId,
        room_id: RoomId,
        thread_root: EventId,
        *,
        is_subscribed: bool,
        automatic: bool,
    ) -> None:
        """Store what a user is to a thread from now on, and tell their devices."""
        position = await transaction.next_position()
        insert = (
            "INSERT INTO thread_subscriptions"
            " (user_id, room_id, thread_root, is_subscribed, automatic, stream_id)"
            " SELECT $1::text, $2::text, $3::text, $4::smallint, $5::smallint, $6::bigint"
            f" WHERE {NOT_DEACTIVATED} ON CONFLICT (user_id, room_id, thread_root)"
        )
        await transaction.execute_many(
            f"{insert} DO UPDATE SET is_subscribed = excluded.is_subscribed,"
            " automatic = excluded.automatic, stream_id = excluded.stream_id",
            [(user_id, room_id, thread_root, int(is_subscribed), int(automatic), position)],
        )
        await transaction.execute_many(f"{insert} DO NOTHING", [(user_id, EVERYWHERE, "", 1, 0, position)])
        transaction.announce(Topic.THREAD_SUBSCRIPTIONS, user_id)

    async def make_room(self, transaction: Transaction, user_id: UserId) -> bool:
        """Whether there is room for one more of a user; where there is none, the oldest ended one goes."""
        number = await transaction.fetch_value(
            f"SELECT count(*) FROM thread_subscriptions WHERE user_id = $1 AND {_IN_A_ROOM}", user_id
        )
        if (number or 0) < MAX_OF_USER:
            return True
        gone = await transaction.execute(
            "DELETE FROM thread_subscriptions WHERE user_id = $1 AND stream_id = (SELECT min(stream_id)"
            " FROM thread_subscriptions WHERE user_id = $1 AND is_subscribed = 0)",
            user_id,
        )
        return gone > 0

    async def get(self, user_id: UserId, room_id: RoomId, thread_root: EventId) -> ThreadSubscription | None:
        """What a user is to a thread; None where they have never been anything to it."""
        return await _get(self._database, user_id, room_id, thread_root)

    async def get_in(
        self, transaction: Transaction, user_id: UserId, room_id: RoomId, thread_root: EventId
    ) -> ThreadSubscription | None:
        """The same, as a write that is going to change it sees it."""
        return await _get(transaction, user_id, room_id, thread_root)

    async def load_all(self, user_id: UserId) -> list[ThreadSubscription]:
        """All of a user, and the row that says that they take part."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM thread_subscriptions WHERE user_id = $1", user_id
        )
        return [_read(row) for row in rows]

    async def load_changes(
        self, user_id: UserId, *, after: int, upto: int, limit: int
    ) -> list[ThreadSubscription]:
        """The newest `limit` of a user that changed with `after < stream_id <= upto`, newest first."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM thread_subscriptions WHERE user_id = $1 AND stream_id > $2"
            f" AND stream_id <= $3 AND {_IN_A_ROOM} ORDER BY stream_id DESC LIMIT $4",
            user_id,
            after,
            upto,
            limit,
        )
        return [_read(row) for row in rows]

    async def load_changed_rooms(self, user_id: UserId, *, after: int, upto: int) -> list[RoomId]:
        """The rooms in which any of a user changed with `after < stream_id <= upto`; `EVERYWHERE` is among them where
        the user began to take part then.
        """
        rows = await self._database.fetch_all(
            "SELECT DISTINCT room_id FROM thread_subscriptions"
            " WHERE user_id = $1 AND stream_id > $2 AND stream_id <= $3",
            user_id,
            after,
            upto,
        )
        return [RoomId(row[0]) for row in rows]

    async def delete_of_room(self, transaction: Transaction, user_id: UserId, room_id: RoomId) -> None:
        """Drop those of a user in a room that they have forgotten."""
        if await transaction.execute(
            "DELETE FROM thread_subscriptions WHERE user_id = $1 AND room_id = $2", user_id, room_id
        ):
            transaction.announce(Topic.THREAD_SUBSCRIPTIONS, user_id)

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop all of a user."""
        await transaction.execute("DELETE FROM thread_subscriptions WHERE user_id = $1", user_id)


async def _get(
    reader: Reader, user_id: UserId, room_id: RoomId, thread_root: EventId
) -> ThreadSubscription | None:
    row = await reader.fetch_one(
        f"SELECT {_COLUMNS} FROM thread_subscriptions WHERE user_id = $1 AND room_id = $2 AND thread_root = $3",
        user_id,
        room_id,
        thread_root,
    )
    return None if row is None else _read(row)


def _read(row: tuple) -> ThreadSubscription:  # type: ignore[type-arg]
    room_id, thread_root, is_subscribed, automatic, stream_id = row
    return ThreadSubscription(
        RoomId(room_id), EventId(thread_root), bool(is_subscribed), bool(automatic), stream_id
    )
