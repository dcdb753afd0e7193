"""The connections of sliding sync: what each answer has told, as changes to what the one before it had.

An answer is kept until the client has come back with it, or with another to the same request. The last one with which
it came back, and what that one follows, make up what the client certainly holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homeserver.ids import DeviceId, UserId
    from homeserver.storage.database import Database, Transaction

MAX_CONNECTIONS = 16
"""Of one device; the one that was not used for the longest time gives way."""
UNUSED_MS = 30 * 24 * 3_600 * 1000
"""After so long without use a connection goes."""
_MAX_UNACKNOWLEDGED = 3
_EXPIRED_AT_ONCE = 1_000


class ConnectionKey(NamedTuple):
    """Which connection."""

    user_id: UserId
    device_id: str
    conn_id: str


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """What one answer told."""

    answer_nid: int
    parent_nid: int
    changes: bytes


class SlidingSyncStore:
    """Connections with their answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load_answers(self, key: ConnectionKey, answered: int) -> list[AnswerRow]:
        """An answer of a connection and those that it follows, oldest first.

        None at all where the client can no longer come back with it.
        """
        rows = await self._database.fetch_all(
            "SELECT a.answer_nid, a.parent_nid, a.changes, c.acknowledged FROM sliding_connections c"
            " JOIN sliding_answers a ON a.user_id = c.user_id AND a.device_id = c.device_id"
            " AND a.conn_id = c.conn_id WHERE c.user_id = $1 AND c.device_id = $2 AND c.conn_id = $3",
            *key,
        )
        by_number = {row[0]: AnswerRow(row[0], row[1], bytes(row[2])) for row in rows}
        if answered not in by_number or rows[0][3] not in (answered, by_number[answered].parent_nid):
            return []
        followed: list[AnswerRow] = []
        number = answered
        while number != 0:
            followed.append(by_number[number])
            number = by_number[number].parent_nid
        return followed[::-1]

    async def begin(self, transaction: Transaction, key: ConnectionKey, changes: bytes, now_ms: int) -> int:
        """Begin a connection, in the place of one with the same name; the number of its first answer."""
        await self._delete(transaction, [key])
        others = await transaction.fetch_all(
            "SELECT conn_id FROM sliding_connections WHERE user_id = $1 AND device_id = $2"
            " ORDER BY used_ts DESC, conn_id",
            key.user_id,
            key.device_id,
        )
        too_many = [
            ConnectionKey(key.user_id, key.device_id, row[0]) for row in others[MAX_CONNECTIONS - 1 :]
        ]
        await self._delete(transaction, too_many)
        await transaction.execute_many(
            "INSERT INTO sliding_connections (user_id, device_id, conn_id, acknowledged, used_ts)"
            " VALUES ($1, $2, $3, 0, $4)",
            [(*key, now_ms)],
        )
        return await self._insert(transaction, key, 0, changes)

    async def go_on(
        self, transaction: Transaction, key: ConnectionKey, answered: int, changes: bytes, now_ms: int
    ) -> int | None:
        """Note an answer to a client that holds the answer `answered`; its number.

        What the client can no longer come back with goes. None where that is `answered` itself: the client has been
        answered otherwise meanwhile.
        """
        acknowledged = await transaction.fetch_value(
            "SELECT acknowledged FROM sliding_connections WHERE user_id = $1 AND device_id = $2 AND conn_id = $3",
            *key,
        )
        later = await transaction.fetch_all(
            "SELECT answer_nid FROM sliding_answers WHERE user_id = $1 AND device_id = $2 AND conn_id = $3"
            " AND parent_nid = $4 ORDER BY answer_nid",
            *key,
            acknowledged or 0,
        )
        unacknowledged = [row[0] for row in later if row[0] != acknowledged]
        if acknowledged is None or answered not in (acknowledged, *unacknowledged):
            return None
        if answered != acknowledged:
            await self._delete_answers(
                transaction, key, [answer_nid for answer_nid in unacknowledged if answer_nid != answered]
            )
        else:
            await self._delete_answers(transaction, key, unacknowledged[: 1 - _MAX_UNACKNOWLEDGED])
        await transaction.execute(
            "UPDATE sliding_connections SET acknowledged = $4, used_ts = $5"
            " WHERE user_id = $1 AND device_id = $2 AND conn_id = $3",
            *key,
            answered,
            now_ms,
        )
        return await self._insert(transaction, key, answered, changes)

    async def touch(self, transaction: Transaction, key: ConnectionKey, now_ms: int) -> None:
        """Note that a connection is in use."""
        await transaction.execute_many(
            "UPDATE sliding_connections SET used_ts = $4 WHERE user_id = $1 AND device_id = $2 AND conn_id = $3",
            [(*key, now_ms)],
        )

    async def put_together(
        self, transaction: Transaction, key: ConnectionKey, answered: int, whole: bytes
    ) -> None:
        """Replace an answer that the client has, and those that it follows, by one row that says all."""
        await transaction.execute(
            "DELETE FROM sliding_answers WHERE user_id = $1 AND device_id = $2 AND conn_id = $3"
            " AND answer_nid <= $4",
            *key,
            answered,
        )
        await transaction.execute_many(
            "INSERT INTO sliding_answers (user_id, device_id, conn_id, answer_nid, parent_nid, changes)"
            " VALUES ($1, $2, $3, $4, 0, $5)",
            [(*key, answered, whole)],
        )

    async def delete_of_devices(
        self, transaction: Transaction, user_id: UserId, device_ids: Sequence[DeviceId]
    ) -> None:
        """Drop the connections of devices that go."""
        for table in ("sliding_connections", "sliding_answers"):
            await transaction.execute(
                f"DELETE FROM {table} WHERE user_id = $1 AND device_id = ANY($2::text[])",
                user_id,
                list(device_ids),
            )

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> None:
        """Drop connections that were not used for a month, some at a time."""
        rows = await transaction.fetch_all(
            "SELECT user_id, device_id, conn_id FROM sliding_connections WHERE used_ts < $1 LIMIT $2",
            now_ms - UNUSED_MS,
            _EXPIRED_AT_ONCE,
        )
        await self._delete(transaction, [ConnectionKey(*row) for row in rows])

    async def _insert(
        self, transaction: Transaction, key: ConnectionKey, parent_nid: int, changes: bytes
    ) -> int:
        answer_nid = await transaction.next_position()
        await transaction.execute_many(
            "INSERT INTO sliding_answers (user_id, device_id, conn_id, answer_nid, parent_nid, changes)"
            " VALUES ($1, $2, $3, $4, $5, $6)",
            [(*key, answer_nid, parent_nid, changes)],
        )
        return answer_nid

    async def _delete(self, transaction: Transaction, keys: Sequence[ConnectionKey]) -> None:
        for table in ("sliding_connections", "sliding_answers"):
            await transaction.execute_many(
                f"DELETE FROM {table} WHERE user_id = $1 AND device_id = $2 AND conn_id = $3", keys
            )

    async def _delete_answers(
        self, transaction: Transaction, key: ConnectionKey, answer_nids: Sequence[int]
    ) -> None:
        await transaction.execute_many(
            "DELETE FROM sliding_answers WHERE user_id = $1 AND device_id = $2 AND conn_id = $3"
            " AND answer_nid = $4",
            [(*key, answer_nid) for answer_nid in answer_nids],
        )
